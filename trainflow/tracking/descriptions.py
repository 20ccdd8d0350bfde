"""What MLflow's page says of a run in words: its description, in Markdown. Pure."""

from __future__ import annotations

from collections import Counter

from trainflow.observability.redaction import redact_text
from trainflow.tracking.deliveries import RunFinished, TrackedAttempt, TrackedRun
from trainflow.tracking.names import iso

#: the tag that MLflow shows as the description of a run
DESCRIPTION = "mlflow.note.content"
#: of the attempts of tasks that had trouble, so many are listed
_MOST_LISTED = 20
_PROBLEM_CHARACTERS = 120
_WELL = frozenset({"success", "skipped", "deferred", "rescheduled"})


def page_of(run: TrackedRun) -> str:
    """A line that leads back to the run's page; empty where none is known."""
    page = run.links.get("run")
    return f"[{run.dag_id}: {run.run_id}]({page}) in trainflow" if page else ""


def chain_description(run: TrackedRun) -> dict[str, str]:
    """The description of a chain's parent run, as a tag; none where no page is known."""
    page, chain = run.links.get("chain"), run.chain
    return {DESCRIPTION: f"[{chain.pipeline}/{chain.stage}/{chain.branch}]({page}) in trainflow"} if page else {}


def run_description(finished: RunFinished) -> str:
    """Describe a run that has ended: its page, what came of it, and the attempts of tasks that had trouble."""
    parts = [page_of(finished.run), redact_text(finished.note), _committed(finished), _attempts(finished)]
    return "\n\n".join(filter(None, parts))


def _committed(finished: RunFinished) -> str:
    checkpoint, split = finished.checkpoint, finished.split
    if checkpoint is None:
        return ""
    trained = "" if split is None else f", trained on {iso(split.start)} → {iso(split.end)}"
    return f"Checkpoint {checkpoint.number}{trained}"


def attempts_summary(finished: RunFinished) -> str:
    """Attempts by how they ended: `7 success, 1 lost, 2 preempted`."""
    counts = Counter(attempt.outcome for attempt in finished.attempts)
    return ", ".join(
        f"{counts[outcome]} {outcome}" for outcome in sorted(counts, key=lambda name: (name != "success", name))
    )


def _attempts(finished: RunFinished) -> str:
    """All attempts of the tasks that had one which did not go well: what it took until they were done."""
    troubled = {attempt.task_id for attempt in finished.attempts if attempt.outcome not in _WELL}
    if not troubled:
        return ""
    told = [attempt for attempt in finished.attempts if attempt.task_id in troubled]
    rows = [_row(attempt) for attempt in told[-_MOST_LISTED:]]
    head = ["| attempt | ended as | began | seconds | host | why |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _row(attempt: TrackedAttempt) -> str:
    seconds = "" if attempt.seconds is None else f"{attempt.seconds:.1f}"
    began = "" if attempt.started_at is None else iso(attempt.started_at)
    problem = " ".join(redact_text(attempt.problem).split())[:_PROBLEM_CHARACTERS].replace("|", "\\|")
    cells = [f"{attempt.task_id} #{attempt.try_number}", attempt.outcome, began, seconds, attempt.hostname, problem]
    return f"| {' | '.join(cells)} |"
