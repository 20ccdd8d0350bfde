"""A person at the command line, and a judge that has to find what is wrong: `python -m tests.people` at length."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trainflow
from tests.people.deeds import DEEDS
from tests.people.planted import SKIPS_AFTER_KILL, TWICE_AFTER_REWIND
from tests.people.replay import Judge
from tests.people.session import Session

pytestmark = pytest.mark.slow

BY_NAME = {deed.name: deed for deed in DEEDS}
DAYS = 3


def play(folder: Path, *names: str, drawn: int = 0, **options: Any) -> list[str]:
    session = Session(folder, "4", days=DAYS, **options)
    try:
        return session.play([*session.drawn(drawn), *(BY_NAME[name] for name in names)])
    finally:
        session.close()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("planted", "deeds"),
    [(SKIPS_AFTER_KILL, ("start", "power cut at work")), (TWICE_AFTER_REWIND, ("start and wait", "rewind all"))],
    ids=["skips after a kill", "twice after a rewind"],
)
def test_session_finds_planted_bug(tmp_path: Path, planted: str, deeds: tuple[str, ...]) -> None:
    assert "the model has the rows" in "\n".join(play(tmp_path, *deeds, planted=planted, pause=0.05))


@pytest.mark.exhaustive
def test_upgrade_under_what_trains_goes_on_as_the_new_build(tmp_path: Path) -> None:
    session = Session(tmp_path, "4", days=DAYS, pause=0.05, package=Path(trainflow.__file__).parent)
    try:
        assert session.play([BY_NAME["start"], BY_NAME["upgrade at work"]]) == []
    finally:
        session.close()
    (began,) = [ended.output for ended in session.said if ended.words[0] == "start" and "was replaced" in ended.output]
    assert "it goes on as what is there now" in began
    assert "outcome     caught up" in began


# -- the judge, over the files of a session that went well ------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short session, in which nothing may be wrong; in it each day is trained twice at least."""
    folder = tmp_path_factory.mktemp("people")
    assert play(folder, "start and wait", "rewind all", drawn=5) == []
    return folder / "project"


Meddle = Callable[[Path], None]


def entries_of(project: Path) -> list[Path]:
    return sorted((project / "checkpoints").glob("*/*/main/ledger/0*.json"))


def rewrite(project: Path, number: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Change an entry, counted from 0, and make the digests of those after it fit again."""
    before = b""
    for index, path in enumerate(entries_of(project)):
        entry = json.loads(path.read_bytes())
        if index == (number if number >= 0 else len(entries_of(project)) + number):
            change(entry)
        entry["previous"] = f"sha256:{hashlib.sha256(before).hexdigest()}" if before else ""
        before = json.dumps(entry).encode()
        path.chmod(0o644)
        path.write_bytes(before)


def retrain(project: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    """Let the head's model have other rows, with files and digests that go together."""
    last = [json.loads(path.read_bytes()) for path in entries_of(project)]
    head = [entry for entry in last if entry["kind"] == "checkpoint"][-1]
    folder = project / "checkpoints" / head["artifacts"]["path"]
    rows = change(json.loads((folder / "rows.json").read_text()))
    weights = hashlib.sha256("".join(json.dumps(row) for row in rows).encode()).digest()
    contents = {"rows.json": json.dumps(rows).encode(), "weights.bin": weights}
    folder.chmod(0o755)
    for name, content in contents.items():
        (folder / name).chmod(0o644)
        (folder / name).write_bytes(content)

    def fit(entry: dict[str, Any]) -> None:
        for each in entry["artifacts"]["files"]:
            content = contents[each["path"]]
            each |= {"size": len(content), "sha256": f"sha256:{hashlib.sha256(content).hexdigest()}"}

    rewrite(project, last.index(head), fit)


def first_partition_elsewhere(entry: dict[str, Any]) -> None:
    entry["split"]["start"] = "2024-01-02T00:00:00Z"


def other_fingerprint(entry: dict[str, Any]) -> None:
    entry["split"]["partitions"][0]["fingerprint"] = "sha256:0"


def no_parent(entry: dict[str, Any]) -> None:
    entry["parent_id"] = None


def wrong_edition(rows: list[Any]) -> list[Any]:
    return [*rows[:-1], [rows[-1][0], 7, rows[-1][2]]]


def newest(project: Path, start: str = "") -> int:
    """The newest checkpoint, or the newest whose split begins there: the place of its entry."""
    entries = [json.loads(path.read_bytes()) for path in entries_of(project)]
    of = [entry["kind"] == "checkpoint" and start in entry["split"]["start"] for entry in entries]
    return max(index for index, wanted in enumerate(of) if wanted)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("meddle", "found"),
    [
        (lambda project: None, ""),
        (lambda project: retrain(project, lambda rows: rows[:-1]), "the model has the rows"),
        (lambda project: retrain(project, lambda rows: [*rows, rows[-1]]), "the model has 25 rows, its splits 24"),
        (lambda project: retrain(project, lambda rows: [*rows[:-2], rows[-1], rows[-2]]), "its model has other rows"),
        (lambda project: retrain(project, wrong_edition), "is of editions [0, 7]"),
        (lambda project: rewrite(project, newest(project), first_partition_elsewhere), "do not tile"),
        (lambda project: rewrite(project, newest(project, "01-01"), other_fingerprint), "fingerprint is not of"),
        (lambda project: rewrite(project, newest(project), no_parent), "is no child of the head"),
        (lambda project: entries_of(project)[1].unlink(), "entry 2 is"),
        (lambda project: max((project / "diary").iterdir()).unlink(), "did not train to its end"),
    ],
    ids=[
        "nothing", "row lost", "row twice", "order", "edition", "split", "fingerprint", "fence", "entry lost", "diary",
    ],
)  # fmt: skip
def test_judge_finds_what_is_wrong(trained: Path, tmp_path: Path, meddle: Meddle, found: str) -> None:
    project = tmp_path / "project"
    shutil.copytree(trained, project)
    meddle(project)
    problems = Judge(project, days=DAYS, shuffle="shuffle: true" in (project / "pipelines/clicks.yaml").read_text())
    wrong = problems.problems()
    assert bool(wrong) == bool(found)
    assert found in "\n".join(wrong)
