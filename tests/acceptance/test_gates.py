"""Gates, as a person meets them: the chain stops, says why, tells a webhook once, and goes on after a decision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.live_project import WITHOUT_MLFLOW, LiveProject
from tests.support.tiny_project import FILE, NAME, tiny_project
from tests.support.webhook import SECRET, Receiver, webhook

pytestmark = pytest.mark.slow

PIPELINE = """\
pipeline: tiny
retries: 0
samples: {path: "samples/{start:%Y-%m-%d}/", length: 1d, start: 2024-01-01, end: 2024-01-31}
split: {partitions: 1}
train: {function: "operators.good:train"}
gates: [GATE]
promote: {alias: champion, when: auc >= 0.85}
"""

#: as good as `quality.json` says of the day; a training of the same day with another seed is as good as `again` says
GOOD = """\
import json
from operators import tiny

def train(ctx):
    tiny.train(ctx)
    known = json.loads((tiny.ROOT / "quality.json").read_text())
    day = str(ctx.split.partitions[0].start.day)
    tiny.note("seed", day, ctx.seed)
    before = tiny.ROOT / f"seed-{day}"
    again = before.exists() and before.read_text() != str(ctx.seed)
    before.write_text(str(ctx.seed))
    return {"auc": known["again" if again else day]}
"""
BAD_DAY = {"1": 0.7, "2": 0.8, "3": 0.5, "4": 0.9, "again": 0.75}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with webhook() as found:
        yield found


@pytest.fixture
def project(tmp_path: Path, receiver: Receiver) -> Callable[[str], LiveProject]:
    def lay_out(gate: str) -> LiveProject:
        settings = WITHOUT_MLFLOW + f'[notifications]\nwebhook = "{receiver.url}"\n'
        project = tiny_project(tmp_path / "p", days=4, pipeline=PIPELINE.replace("GATE", gate))
        project.write("configs/trainflow.toml", settings)
        project.write("operators/good.py", GOOD)
        project.write("quality.json", json.dumps(BAD_DAY))
        return project

    return lay_out


def kinds(project: LiveProject) -> list[str]:
    return [type(entry).__name__ for entry in project.ledger(NAME).entries()]


def trained(project: LiveProject) -> list[str]:
    return [words[1] for words in project.journal() if words[0] == "seed"]


def audited(project: LiveProject) -> None:
    report = project.audit(NAME)
    assert (report.problems, report.gaps, report.duplicates) == ([], [], [])
    assert report.watermark is not None
    assert report.watermark.day == 5


def test_chain_that_gate_stopped(project: Callable[[str], LiveProject], receiver: Receiver) -> None:
    tiny = project("auc >= 0.6")
    for _ in range(2):  # starting it again changes nothing, and sends no notice again
        ended = tiny.start(FILE)
        assert ended.code == 1
        assert "stopped" in ended.output
        assert "auc >= 0.6: it is 0.5" in ended.output
        assert "trainflow resume" in ended.output
    assert trained(tiny) == ["1", "2", "3"]
    assert receiver.events == ["stopped"]
    message = receiver.messages[0]
    assert (message["cause"], message["facts"]["metrics"]) == ("gate", {"auc": 0.5})
    why = tiny.ask("why", FILE).output
    assert "a gate stopped the chain: auc >= 0.6: it is 0.5; 'trainflow resume pipelines/tiny.yaml'" in why
    assert "stopped by a gate" in tiny.ask("status", FILE).output

    assert tiny.ask("resume", FILE, "--accept", "--skip").code == 2
    ended = tiny.run("resume", FILE, "--accept", "--reason", "a holiday")

    assert ended.code == 0, ended.output
    assert "is accepted although auc >= 0.6: it is 0.5" in ended.output
    # not trained again, and the run that trained it goes on
    assert trained(tiny) == ["1", "2", "3", "4"]
    assert kinds(tiny) == ["Checkpoint", "Checkpoint", "Stop", "Checkpoint", "Checkpoint", "Promotion"]
    accepted = tiny.checkpoints(NAME)[2].accepted
    assert accepted is not None
    assert accepted.reason == "a holiday"
    assert receiver.events == ["stopped", "resumed", "promoted"]
    assert receiver.messages[1]["facts"]["decision"] == "accept"
    runs = json.loads(tiny.ask("runs", "list", "tiny", "--json").output)
    assert sorted((run["number"], run["state"]) for run in runs) == [
        (1, "success"),
        (2, "success"),
        (3, "success"),
        (4, "failed"),  # the start of a stopped chain
        (5, "success"),
        (6, "success"),
    ]
    assert SECRET not in "".join(path.read_text() for path in (tiny.root / ".trainflow/logs").rglob("*.log"))
    audited(tiny)
    ended = tiny.ask("resume", FILE, "--skip")
    assert (ended.code, "is stopped by a gate" in ended.output) == (2, True)


@pytest.mark.exhaustive
def test_stop_outlives_database(project: Callable[[str], LiveProject], receiver: Receiver) -> None:
    tiny = project("auc >= 0.6")
    assert tiny.start(FILE).code == 1
    shutil.rmtree(tiny.root / ".trainflow")

    ended = tiny.start(FILE)
    assert (ended.code, "auc >= 0.6: it is 0.5" in ended.output) == (1, True)
    shutil.rmtree(tiny.root / ".trainflow")
    ended = tiny.run("resume", FILE, "--accept")

    assert ended.code == 0, ended.output
    assert trained(tiny) == ["1", "2", "3", "4"]
    # a receiver that is told twice can tell
    assert len({message["id"] for message in receiver.messages if message["event"] == "stopped"}) == 1
    audited(tiny)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        ([], ["Stop", "Resume", "Checkpoint", "Checkpoint", "Promotion"]),
        (["--skip"], ["Stop", "Skip", "Checkpoint", "Promotion"]),
        (["--rewind", "1"], ["Stop", "Rewind", "Checkpoint", "Checkpoint", "Checkpoint", "Promotion"]),
    ],
)
def test_resume_with_other_decisions_goes_on(
    project: Callable[[str], LiveProject], receiver: Receiver, decision: list[str], expected: list[str]
) -> None:
    tiny = project("auc >= 0.6")
    assert tiny.start(FILE).code == 1
    tiny.write("quality.json", json.dumps(BAD_DAY | {"3": 0.75}))

    ended = tiny.run("resume", FILE, *decision)

    assert ended.code == 0, ended.output
    assert kinds(tiny) == ["Checkpoint", "Checkpoint", *expected]
    assert receiver.events == ["stopped", "resumed", "promoted"]
    audited(tiny)


def test_gate_that_skips(project: Callable[[str], LiveProject], receiver: Receiver) -> None:
    tiny = project("{require: auc >= 0.6, otherwise: skip}")

    ended = tiny.start(FILE)

    assert ended.code == 0, ended.output
    assert "skipped 2024-01-03T00:00Z to 2024-01-04T00:00Z: auc >= 0.6: it is 0.5" in ended.output
    assert kinds(tiny) == ["Checkpoint", "Checkpoint", "Skip", "Checkpoint", "Promotion"]
    report = tiny.audit(NAME)
    assert [(hole.start.day, hole.end.day) for hole in report.holes] == [(3, 4)]
    assert receiver.events == ["promoted"]
    audited(tiny)


@pytest.mark.exhaustive
def test_gate_that_rewinds(project: Callable[[str], LiveProject], receiver: Receiver) -> None:
    tiny = project("{require: auc >= 0.6, otherwise: rewind 1}")

    ended = tiny.start(FILE)

    assert ended.code == 0, ended.output
    assert "rewound to checkpoint" in ended.output
    assert trained(tiny) == ["1", "2", "3", "2", "3", "4"]
    assert kinds(tiny) == ["Checkpoint", "Checkpoint", "Rewind", "Checkpoint", "Checkpoint", "Checkpoint", "Promotion"]
    assert receiver.events == ["promoted"]
    audited(tiny)
