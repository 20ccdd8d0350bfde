"""Record what one build of trainflow leaves to the next: rows of the database, files of the store, workloads.

`python -m tests.tools.record_documents FILE` trains a little in a temporary folder, waits for more samples, and writes
what is kept then as JSON. Run it again when `tests/integration/test_documents_of_builds.py` asks for it: what an older
build has written stays beside it, under another name.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.support.tiny_project import PIPELINE, LiveProject, tiny_project
from trainflow.messages.execution_api import Outcome, OutcomeState
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask

_WAITING = PIPELINE.replace("retry_delay: 0s", "retry_delay: 0s\nmode: latest")
#: stands for the project's folder
ROOT = "/PROJECT"
_SECONDS = 120


def record(root: Path) -> dict[str, Any]:
    """Train in `root`, and return what is kept while the chain waits for samples."""
    project = tiny_project(root, days=3, pipeline=_WAITING.replace("2024-01-31", "2024-02-28"))
    (root / "hold").touch()
    running = project.begin("start", "pipelines/tiny.yaml")
    try:
        saves = _until(lambda: _files(root, "**/partials/**/manifest.*.json"))
        (root / "hold").unlink()
        _until(lambda: _rows(project, "SELECT 1 AS one FROM trigger"))
    finally:
        running.control_c()
        running.wait()
    xcoms = _rows(project, "SELECT task_id, key, value FROM xcom WHERE key = 'return_value' ORDER BY created_at")
    return {
        "trigger": _rows(project, "SELECT trigger_class, kwargs FROM trigger")[0],
        "dag": _rows(project, "SELECT document FROM dag_version")[0]["document"],
        "xcoms": {each["task_id"]: each["value"] for each in reversed(xcoms)},
        "notices": [each["notice"] for each in _rows(project, "SELECT notice FROM notification")],
        "services": _rows(project, "SELECT executors, details FROM service"),
        "saves": saves,
        "ledger": _files(root, "**/ledger/*.json"),
        "newest": _files(root, "**/newest.json"),
        **_made(),
    }


def _made() -> dict[str, Any]:
    """What only a fleet, or an engine that is away, keeps."""
    key = AttemptKey("20240101T000000-0123456789abcdef", 0)
    places = {"project_root": ROOT, "home": f"{ROOT}/.trainflow", "log_path": f"{ROOT}/.trainflow/logs/a.log"}
    task = ExecuteTask(
        key, 7, "tiny", "r1", "train", -1, DagSource("pipelines/tiny.yaml"), **places,
        api_url="http://127.0.0.1:8080", claim_secret="not-a-secret",
    )  # fmt: skip
    outcome = Outcome(key, OutcomeState.SUCCESS, note="well", saved_rows=12)
    return {"workload": _text(task), "outcome": _text(outcome)}


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _rows(project: LiveProject, query: str) -> list[dict[str, Any]]:
    path = project.root / ".trainflow" / "trainflow.db"
    if not path.exists():
        return []
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(query)]
        except sqlite3.OperationalError:
            return []  # its tables are being made


def _files(root: Path, pattern: str) -> list[str]:
    return [path.read_text() for path in sorted(root.glob(pattern)) if path.is_file()]


def _until(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + _SECONDS
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError("what is to be recorded does not come")
        time.sleep(0.05)
    return found


def main() -> None:
    """Write the file that is named."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        recorded = json.dumps(record(root), indent=1).replace(str(root), ROOT)
    Path(sys.argv[1]).write_text(recorded + "\n")


if __name__ == "__main__":
    main()
