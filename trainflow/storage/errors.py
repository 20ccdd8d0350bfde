"""What a store's refusal is raised as: which exception, where, why, and what to do. No secret is in it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from trainflow.errors import (
    SampleBucketMissing,
    SampleFileMissing,
    SampleUnreadable,
    StoreDenied,
    StoreFailure,
    StoreMissing,
)
from trainflow.observability.redaction import redact_text, texts_of
from trainflow.storage.reasons import LASTING_REASONS, RefusalReason, chain_of, reason_of

_DONE = {
    "read": "read",
    "list": "read",
    "create": "created",
    "write": "written",
    "upload": "written",
    "delete": "deleted",
    "seal": "made read-only",
    "reach": "used",
}


#: how Python says that a function has no such parameter: drivers hand on what they do not know
_UNKNOWN_OPTION = re.compile(r"unexpected keyword argument '(\w+)'")


class Failures(ABC):
    """Make the exceptions that a store raises, for those who opened it. `options`: their texts are masked."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        # which driver it is may be said
        self._options = frozenset(_names(options or {}))
        self._secrets = tuple(texts_of({name: value for name, value in (options or {}).items() if name != "driver"}))

    def failure(self, doing: str, location: str, error: BaseException) -> BaseException:
        """What is raised for what a driver raised while it was `doing` something; `error` itself where that says it."""
        if isinstance(error, FileNotFoundError) and doing == "read":
            return self._file_missing(error, location)
        reason = reason_of(error)
        return self._failure(self._message(doing, location, error, reason), location, reason)

    def raise_for(self, doing: str, location: str, error: BaseException) -> NoReturn:
        """Raise it."""
        raised = self.failure(doing, location, error)
        if raised is error:
            raise error
        raise raised from self.shown(error)

    def _message(self, doing: str, location: str, error: BaseException, reason: RefusalReason) -> str:
        unknown = _UNKNOWN_OPTION.search(str(error)) if isinstance(error, TypeError) else None
        if unknown is not None and unknown[1] in self._options:
            return (
                f"{self.masked(location)} cannot be {_DONE[doing]}: its driver knows no storage option '{unknown[1]}'"
            )
        said = self.masked(_said(error)).rstrip(".")
        return f"{self.masked(location)} cannot be {_DONE[doing]}: {said}; {reason.value}"

    def bucket_missing(self, location: str, bucket: str) -> Exception:
        """The bucket or container does not exist."""
        where = self.masked(location)
        message = f"{where} cannot be used: its bucket (or container) {bucket!r} does not exist; "
        return self._failure(message + RefusalReason.BUCKET_MISSING.value, location, RefusalReason.BUCKET_MISSING)

    def masked(self, text: str) -> str:
        """`text` without secrets."""
        return redact_text(text, self._secrets)

    def shown(self, error: BaseException) -> BaseException | None:
        """The cause to show in a traceback: none when it would print a secret."""
        return error if all(self.masked(str(each)) == str(each) for each in chain_of(error)) else None

    @abstractmethod
    def _failure(self, message: str, location: str, reason: RefusalReason) -> Exception: ...

    @abstractmethod
    def _file_missing(self, error: FileNotFoundError, location: str) -> Exception: ...


class CheckpointFailures(Failures):
    """StoreFailure and those below it, for checkpoints; FileNotFoundError for a file that is not there."""

    def _failure(self, message: str, location: str, reason: RefusalReason) -> Exception:
        if reason is RefusalReason.BUCKET_MISSING:
            return StoreMissing(message, location=self.masked(location))
        kind = StoreDenied if reason in LASTING_REASONS else StoreFailure
        return kind(message, location=self.masked(location))

    def _file_missing(self, error: FileNotFoundError, location: str) -> Exception:
        return error  # asked for often: a ledger's next entry is not there until it is


class SampleFailures(Failures):
    """SampleUnreadable and those below it, for samples; SampleFileMissing for a file that is not there."""

    def _failure(self, message: str, location: str, reason: RefusalReason) -> Exception:
        return SampleBucketMissing(message) if reason is RefusalReason.BUCKET_MISSING else SampleUnreadable(message)

    def _file_missing(self, error: FileNotFoundError, location: str) -> Exception:
        reason = reason_of(error)
        message = self._message("read", location, error, reason)
        return SampleBucketMissing(message) if reason is RefusalReason.BUCKET_MISSING else SampleFileMissing(message)


def failure(doing: str, location: str, error: BaseException) -> BaseException:
    """What went wrong with a file of checkpoints, where, and what to do about it."""
    return CheckpointFailures().failure(doing, location, error)


def is_missing_bucket(error: BaseException) -> bool:
    """Whether a file or a folder is not there because its bucket is not."""
    return reason_of(error) is RefusalReason.BUCKET_MISSING


def _names(options: Mapping[str, Any]) -> Iterator[str]:
    """Names of options, also of those inside of one."""
    for name, value in options.items():
        yield str(name)
        if isinstance(value, Mapping):
            yield from _names(value)


def _said(error: BaseException) -> str:
    """What a driver says: an error of the system speaks for itself, of others the class is a part of what they say."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, OSError) and text:
        return text
    return f"{text} ({type(error).__name__})" if text else type(error).__name__
