"""What a receiver gets, a notice as one JSON object, and who receives it: a webhook (POST) or a command.

Delivering blocks: it belongs in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from trainflow.errors import NotificationRefused
from trainflow.identifiers import canonical_json, digest
from trainflow.messages.notice import Notice
from trainflow.observability.redaction import redact, redact_text

FORMAT = 1
HTTP_SECONDS = 10.0
COMMAND_SECONDS = 30.0
_STDERR_CHARACTERS = 200


def payload(notice: Notice, *, at: datetime, project: str) -> dict[str, Any]:
    """The object (see the package for its keys). `at` is aware; secrets that slipped into a sentence are cut out."""
    return {
        "format": FORMAT,
        "id": notice_id(notice, project),
        "event": notice.event.value,
        "cause": notice.cause.value if notice.cause else None,
        "at": at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z",
        "project": project,
        "pipeline": notice.pipeline,
        "stage": notice.stage,
        "branch": notice.branch,
        "dag_id": notice.dag_id,
        "run_id": notice.run_id,
        "sentence": redact_text(notice.sentence),
        "facts": redact(notice.facts),
    }


def notice_id(notice: Notice, project: str) -> str:
    """The same for the same fact, also when the metadata database was lost in between."""
    chain = [project, notice.pipeline, notice.stage, notice.branch]
    return digest(canonical_json([*chain, notice.event.value, notice.key])).removeprefix("sha256:")[:32]


class Target(Protocol):
    """Somewhere messages go. `name` tells the targets of a project apart."""

    name: str

    def tell(self, message: dict[str, Any]) -> None:
        """Deliver it. Raises NotificationRefused."""
        ...


class Webhook(Target):
    """An HTTP(S) address that takes a POST with a JSON body and answers 2xx. Its path is treated as a secret."""

    name = "webhook"

    def __init__(self, url: str, timeout_seconds: float = HTTP_SECONDS) -> None:
        self._url = url
        self._timeout = timeout_seconds

    def tell(self, message: dict[str, Any]) -> None:
        # loaded when there is something to tell: ssl and http cost more than the rest of an idle engine's thread
        import urllib.error
        import urllib.request

        try:
            request = urllib.request.Request(
                self._url,
                data=msgspec.json.encode(message),
                headers={"Content-Type": "application/json", "User-Agent": "trainflow"},
                method="POST",
            )
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            error.close()
            raise NotificationRefused(f"the webhook at {self._host()} answered {error.code}") from None
        except OSError as error:
            told = " ".join(redact_text(str(getattr(error, "reason", error))).split())
            raise NotificationRefused(f"the webhook at {self._host()} was not reached: {told}") from None
        except Exception as error:
            # ValueError, http.client's own: their texts repeat parts of the address
            raise NotificationRefused(f"the webhook at {self._host()} failed: {type(error).__name__}") from None

    def _host(self) -> str:
        from urllib.parse import urlsplit

        try:
            return urlsplit(self._url).hostname or "?"
        except ValueError:
            return "?"


class Command(Target):
    """A program that reads the message from its standard input and ends with 0. It runs in the project's folder."""

    name = "command"

    def __init__(self, argv: Sequence[str], folder: Path, timeout_seconds: float = COMMAND_SECONDS) -> None:
        self._argv = list(argv)
        self._folder = folder
        self._timeout = timeout_seconds

    def tell(self, message: dict[str, Any]) -> None:
        import subprocess

        program = Path(self._argv[0]).name
        try:
            ended = subprocess.run(
                self._argv,
                input=msgspec.json.encode(message),
                cwd=self._folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=self._timeout,
                # Ctrl-C reaches the engine, which lets this come to its end
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotificationRefused(f"the command {program} did not end within {self._timeout:g} s") from None
        except OSError as error:
            raise NotificationRefused(f"the command {program} cannot be started: {error.strerror}") from None
        if ended.returncode != 0:
            raise NotificationRefused(f"the command {program} ended with {ended.returncode}{_last_line(ended.stderr)}")


def _last_line(stderr: bytes) -> str:
    lines = redact_text(stderr.decode(errors="replace")).strip().splitlines()
    return f": {lines[-1][:_STDERR_CHARACTERS]}" if lines else ""


def targets(webhook: str | None, command: Sequence[str], folder: Path) -> list[Target]:
    """Where a project's messages go."""
    found: list[Target] = [Webhook(webhook)] if webhook else []
    return [*found, Command(command, folder)] if command else found
