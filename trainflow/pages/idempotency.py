"""Forms that act once, however often they are sent: by a double click, a reload, or the way back in a browser."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, TimeoutError
from typing import NamedTuple

import msgspec

from trainflow.clock import Clock
from trainflow.errors import InputError
from trainflow.metadata.queries import idempotency_queries
from trainflow.workspace.workspace import Workspace

#: in the scope of a request whose form had acted before, and did not now
REPEATED = "trainflow.repeated"
#: the field of a form that tells it from others
FIELD = "form_key"
#: what stands in a page that is kept, where each that is sent gets a key of its own: it cannot be guessed
PLACEHOLDER = f"form-{secrets.token_hex(16)}"
#: how long the same form, sent again meanwhile, waits for what the first one led to
_WAIT_SECONDS = 30.0
_LONGEST_KEY = 100
_SEE_OTHER = 303


def with_new_keys(page: bytes) -> bytes:
    """A page whose forms have keys that no other one has."""
    mark = PLACEHOLDER.encode()
    return page.replace(mark, secrets.token_hex(16).encode()) if mark in page else page


class FormDone(NamedTuple):
    """Where a form that acted leads; `repeated`: it had acted before, and did not now."""

    target: str
    repeated: bool = False


class FormsOnce:
    """What forms that act are answered through. Fit for several threads."""

    def __init__(self, workspace: Workspace, clock: Clock) -> None:
        self._workspace = workspace
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, str], Future[FormDone]] = {}

    def done(self, owner: str, name: str, form: Mapping[str, str], act: Callable[[], str]) -> FormDone:
        """Where the form `name` of `owner` leads once `act` has done what it says. The same form with the same values
        acts once; what it was refused for may be tried again. Raises what `act` raises, and InputError."""
        given = form.get(FIELD, "")
        if not given:
            return FormDone(act())
        if len(given) > _LONGEST_KEY or not given.isprintable():
            raise InputError("the form was not made by this server: load its page again")
        fingerprint = _fingerprint(name, form)
        key = _key(given, fingerprint)
        with self._lock:
            first = self._under_way.get((owner, key))
            mine: Future[FormDone] = Future()
            if first is None:
                self._under_way[owner, key] = mine
        if first is not None:
            return FormDone(_waited(first).target, repeated=True)
        try:
            done = self._once(owner, key, fingerprint, act)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(done)
            return done
        finally:
            with self._lock:
                del self._under_way[owner, key]

    def has_acted(self, owner: str, name: str, form: Mapping[str, str]) -> bool:
        """Whether this very form was sent before, be it that it is still being done."""
        given = form.get(FIELD, "")
        if not given or len(given) > _LONGEST_KEY:
            return False
        key = _key(given, _fingerprint(name, form))
        with self._lock:
            if (owner, key) in self._under_way:
                return True
        return (
            self._workspace.database.read(lambda connection: idempotency_queries.find(connection, owner, key))
            is not None
        )

    def _once(self, owner: str, key: str, fingerprint: str, act: Callable[[], str]) -> FormDone:
        write, now = self._workspace.database.write, self._clock.now()
        found = write(lambda connection: idempotency_queries.begin(connection, owner, key, fingerprint, now))
        if found is not None:
            if found.answer is None:
                raise InputError(
                    "this form was sent before, and is still being done, or its server was killed meanwhile: look at "
                    "what it is about, and load its page again to send it anew"
                )
            return FormDone(str(found.answer), repeated=True)
        try:
            target = act()
        except BaseException:
            write(lambda connection: idempotency_queries.forget(connection, owner, key))
            raise
        write(lambda connection: idempotency_queries.end(connection, owner, key, _SEE_OTHER, target))
        return FormDone(target)


def _waited(first: Future[FormDone]) -> FormDone:
    try:
        return first.result(_WAIT_SECONDS)
    except TimeoutError:
        raise InputError("this form was sent before, and is still being done") from None


def _key(given: str, fingerprint: str) -> str:
    """The key of a form: with other values it is another one, even if its page is the same."""
    return f"form:{given}:{fingerprint[:32]}"


def _fingerprint(name: str, form: Mapping[str, str]) -> str:
    fields = sorted((field, value) for field, value in form.items() if field != FIELD)
    return hashlib.sha256(msgspec.json.encode([name, fields])).hexdigest()
