"""Notifications: tell the world outside what happened to a chain. Never in the way of training.

    task, scheduler or command ── Notice ──▶ table `notification` ──▶ the engine's notifier ──▶ webhook, command …

A notice is written in the transaction that makes it true, and delivered later by the process that runs the mirror (an
engine, or the scheduler alone), at least once: a receiver tells a repetition by its `id`. A delivery that fails is
tried again with a growing pause, also by the next engine, and given up after about a day.

What is delivered is one JSON object (`payload`): the body of a POST to `[notifications] webhook`, and the
standard input of `[notifications] command`. A service of Apprise gets a title and the sentence.

    format      1; raised when a key changes its meaning
    id          the same for the same fact
    event       stopped | resumed | promoted | after_commit_failed | republished | never_catches_up
    cause       of `stopped`: gate | gap | check | task; otherwise null
    at          when it happened (ISO 8601, UTC)
    project     name of the project's folder
    pipeline, stage, branch      the chain
    dag_id, run_id               the run it happened in; "" where there is none
    sentence    for people
    page        the chain's page; null where no API server is known
    facts       more about it, by event (`stopped` by a gate: failures, checkpoint_id, start, end, metrics; `promoted`:
                alias, checkpoint_id, number, uri; …)

Invariants: a failure is an answer with a reason, never an exception in the engine; neither the URL of the webhook
(its path often is the secret) nor the arguments of the command are in a message, a log or a database.

A change breaks this when a task or a decision waits for a delivery, or when a key changes its meaning without a new
`format`.

Before it comes `trainflow.messages.notice` (what can happen), after it `engine.notifier`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote, unquote_plus

import msgspec

from trainflow.errors import DeliveryRefused, EngineError
from trainflow.identifiers import canonical_json, digest
from trainflow.messages.notice import Event, Notice
from trainflow.observability.http_delivery import post
from trainflow.observability.redaction import redact, redact_text
from trainflow.settings.model import NotificationSettings

FORMAT = 1
HTTP_SECONDS = 10.0
COMMAND_SECONDS = 30.0
_STDERR_CHARACTERS = 200
#: of a sentence that a service gets: Discord refuses 2,000 with the title and the address of a page
_TEXT_CHARACTERS = 1_000


def payload(notice: Notice, *, at: datetime, project: str, page: str | None = None) -> dict[str, Any]:
    """The object (see the package for its keys). `at` is aware; `page`: the chain's; secrets that slipped into a
    sentence are cut out."""
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
        "page": page,
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
        """Deliver it. Raises DeliveryRefused."""
        ...


class Webhook(Target):
    """An HTTP(S) address that takes a POST with a JSON body and answers 2xx. Its path is treated as a secret."""

    name = "webhook"

    def __init__(self, url: str, timeout_seconds: float = HTTP_SECONDS) -> None:
        self._url = url
        self._timeout = timeout_seconds

    def tell(self, message: dict[str, Any]) -> None:
        body, headers = msgspec.json.encode(message), {"Content-Type": "application/json"}
        try:
            post(self._url, body, headers, timeout_seconds=self._timeout, quotes_answer=False)
        except DeliveryRefused as error:
            # whatever it answers, it is told again: people mend its other end
            raise DeliveryRefused(f"the webhook at {error}") from None


class Command(Target):
    """A program that reads the message from its standard input and ends with 0. It runs in the project's folder."""

    name = "command"

    def __init__(self, argv: Sequence[str], folder: Path, timeout_seconds: float = COMMAND_SECONDS) -> None:
        self._argv = list(argv)
        self._folder = folder
        self._timeout = timeout_seconds

    def tell(self, message: dict[str, Any]) -> None:
        import subprocess
        import tempfile

        program = Path(self._argv[0]).name
        # no pipe: what the command leaves behind on purpose would hold its end
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    self._argv,
                    cwd=self._folder,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    # Ctrl-C reaches the engine, which lets this come to its end
                    start_new_session=True,
                )
            except OSError as error:
                raise DeliveryRefused(f"the command {program} cannot be started: {error.strerror}") from None
            try:
                process.communicate(msgspec.json.encode(message), timeout=self._timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # and what it has begun: nothing else has waited for it
                process.communicate()
                raise DeliveryRefused(f"the command {program} did not end within {self._timeout:g} s") from None
            if process.returncode != 0:
                said.seek(0)
                raise DeliveryRefused(f"the command {program} ended with {process.returncode}{_last_line(said.read())}")


class AppriseService(Target):
    """A service named by one of Apprise's URLs, such as `slack://…`, `mailto://…` or `feishu://…`. All of the URL but
    its scheme is treated as a secret."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._scheme = url.partition("://")[0]
        #: services are told apart: what one has taken is not told it again because another refused
        self.name = f"apprise-{digest(url.encode()).removeprefix('sha256:')[:12]}"

    def tell(self, message: dict[str, Any]) -> None:
        # slow to import, and reads a hundred modules of its own: only where there is something to tell
        import logging

        from apprise import Apprise, LogCapture, NotifyFormat

        # what it logs may hold parts of the URL
        logging.getLogger("apprise").propagate = False
        service = Apprise()
        with LogCapture(level=logging.WARNING, fmt="%(message)s") as said:  # type: ignore[no-untyped-call]
            if not service.add(self._url):
                raise DeliveryRefused(f"Apprise knows no such URL: {self._scheme}://…")
            taken = service.notify(
                title=title(message),
                body=text(message),
                # what a service takes for markup is escaped: an error may hold `<`, a metric's name underscores
                body_format=NotifyFormat.TEXT,
                notify_type=_APPRISE_TYPES[Event(message["event"])],
            )
            lines = said.getvalue().strip().splitlines()
        if not taken:
            why = f": {self._without_secrets(lines[-1])[:_STDERR_CHARACTERS]}" if lines else ""
            raise DeliveryRefused(f"{self._scheme}://… (Apprise) did not take it{why}")

    def _without_secrets(self, text: str) -> str:
        written = set(_PARTS.split(self._url))
        # as a service has them, and as it may write them again
        had = {decoded(part) for part in written for decoded in (unquote, unquote_plus)}
        again = {quote(part, safe) for part in had for safe in ("", "/")}
        for part in sorted(written | had | again, key=len, reverse=True):
            if len(part) >= _SECRET_CHARACTERS:
                text = text.replace(part, "***")
        return redact_text(text)


#: what calls everyone, a group or a person: of Discord, Slack, Feishu, DingTalk
_MENTIONS = re.compile(r"@(?=(?:everyone|here|channel|all)\b)|<(?=[@!#]|at\b)", re.IGNORECASE)
_NO_WIDTH = "\u200b"
#: what a URL's parts are separated by, and from which length on they are cut out of messages
_PARTS = re.compile(r"[/:@?&=,#]+")
_SECRET_CHARACTERS = 4

_APPRISE_TYPES = {
    Event.STOPPED: "failure",
    Event.AFTER_COMMIT_FAILED: "failure",
    Event.NEVER_CATCHES_UP: "warning",
    Event.REPUBLISHED: "warning",
    Event.RESUMED: "info",
    Event.PROMOTED: "success",
}


def title(message: dict[str, Any]) -> str:
    """The subject line of a message: which chain of which project, and what happened."""
    chain = [message["pipeline"], *(each for each in (message["stage"], message["branch"]) if each != "main")]
    return _calling_no_one(f"{'/'.join(chain)}: {message['event'].replace('_', ' ')} ({message['project']})")


def text(message: dict[str, Any]) -> str:
    """What a service shows: the sentence, as long as every service takes, and where to look."""
    sentence = str(message["sentence"])
    if len(sentence) > _TEXT_CHARACTERS:
        sentence = f"{sentence[: _TEXT_CHARACTERS - 1]}…"
    sentence = _calling_no_one(sentence)
    page = message.get("page")
    return f"{sentence}\n{page}" if page else sentence


def _calling_no_one(said: str) -> str:
    """Text in which nothing is a mention: an exception's message may say @everyone, and calls no one by that. It looks
    the same: what would begin a mention is followed by a character of no width."""
    return _MENTIONS.sub(rf"\g<0>{_NO_WIDTH}", said)


def _last_line(stderr: bytes) -> str:
    lines = redact_text(stderr.decode(errors="replace")).strip().splitlines()
    return f": {lines[-1][:_STDERR_CHARACTERS]}" if lines else ""


def targets(settings: NotificationSettings, folder: Path) -> list[Target]:
    """Where a project's messages go. Raises EngineError without Apprise where it is asked for."""
    found: list[Target] = [Webhook(settings.webhook)] if settings.webhook else []
    if settings.command:
        found.append(Command(settings.command, folder))
    if settings.apprise and importlib.util.find_spec("apprise") is None:
        raise EngineError("notifications.apprise: Apprise is not installed here: pip install 'trainflow[apprise]'")
    return [*found, *map(AppriseService, dict.fromkeys(settings.apprise))]
