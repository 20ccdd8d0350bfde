"""What a receiver gets: a notice as one JSON object. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from trainflow.identifiers import canonical_json, digest
from trainflow.messages.notice import Notice
from trainflow.observability.redaction import redact, redact_text

FORMAT = 1


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
