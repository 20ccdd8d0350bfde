"""Whatever is killed, whenever, as often as it is: the same command goes on, and every row is trained on once."""

from __future__ import annotations

import os
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.storm.rounds import Place, Round
from tests.storm.shapes import SHAPES
from tests.support.live_project import LiveProject, Running
from tests.support.local_object_stores import LocalS3
from tests.support.tiny_project import (
    FILE,
    NAME,
    PIPELINE,
    ROWS_A_DAY,
    assert_trained_exactly_once,
    digest,
    expected_boundaries,
    model,
    tiny_project,
)
from trainflow.testing.processes import ProcessKind, wait_for

pytestmark = pytest.mark.slow

#: a storm of kills is no reason to give up here; how often is too often has a test of its own
PATIENT = "[engine]\nlost_attempts = 1000\n"


class Killer:
    """Kills one process after another while a pipeline trains, and starts it again when that ended the command."""

    def __init__(
        self, project: LiveProject, pipeline: str, command: tuple[str, ...], seed: int, looks: int = 15
    ) -> None:
        self.project = project
        self.pipeline = pipeline
        self.command = command
        self.random = random.Random(seed)
        #: how often to look, at the most, before the next kill: about as long as one run takes
        self.looks = looks
        self.killed: list[ProcessKind] = []
        self.running = self._begin()

    def _begin(self) -> Running:
        return self.project.begin_start(*self.command)

    def kill_after(self, commits: int, kind: ProcessKind) -> None:
        """Wait until so much is committed, let a random little time pass - but not so much that another run comes to
        its end meanwhile - and kill a process of the kind."""
        looks = self.random.randrange(self.looks)
        at_start: int | None = None

        def strike() -> bool:
            nonlocal looks, at_start
            if self.running.ended:
                ended = self.running.wait()
                raise AssertionError(f"ended ({ended.code}) after {self.killed}:\n{ended.output}\n{self._log()}")
            committed = self.project.committed(self.pipeline)
            if committed < commits:
                return False
            at_start = committed if at_start is None else at_start
            looks = looks - 1 if committed == at_start else -1
            victims = self.project.processes(kind) if looks < 0 else []
            return bool(victims) and self.random.choice(victims).kill()

        wait_for(strike, lambda: f"a {kind} to kill; there are {self.project.processes()}:\n{self.running.output}")
        self.killed.append(kind)
        if kind is ProcessKind.COMMAND:
            self.running.wait()
            self.running = self._begin()

    def _log(self) -> str:
        return "\n".join(self.project.engine_log().splitlines()[-30:])

    def finish(self) -> None:
        """Let it come to its end."""
        ended = self.running.wait()
        assert ended.code == 0, ended.output
        assert "caught up" in ended.output
        self.project.wait_until_quiet()


@pytest.mark.exhaustive
def test_twenty_kills_in_backfill_of_example(example: LiveProject) -> None:
    example.write("configs/trainflow.toml", "[tracking]\nenabled = false\n" + PATIENT)
    killer = Killer(example, "flight_delay", ("pipelines/flight_delay.yaml",), seed=20130101, looks=40)
    # after the first two the libraries of the model are imported anew, 3 s of processor time
    kinds = [ProcessKind.COMMAND] * 3 + [ProcessKind.WARM_WORKER] * 3 + [ProcessKind.CHILD] * 16
    killer.random.shuffle(kinds)

    for number, kind in enumerate(kinds):
        killer.kill_after(commits=number, kind=kind)  # 27 commits, and a line in the ledger for each that is pruned
    killer.finish()

    assert len(killer.killed) >= 20
    report = example.audit("flight_delay")
    assert (report.problems, report.gaps, report.duplicates, report.holes) == ([], [], [], [])
    assert report.partitions == 365
    first, last = datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC)
    undisturbed = [first + timedelta(days=14 * number) for number in range(27)]
    assert example.boundaries("flight_delay") == list(zip(undisturbed, [*undisturbed[1:], last], strict=True))


def test_kills_of_everything_end_with_model_of_undisturbed_run(tmp_path: Path) -> None:
    days = 14
    undisturbed = tiny_project(tmp_path / "undisturbed", days=days)
    project = tiny_project(tmp_path / "killed", days=days, settings=PATIENT, samples_of=undisturbed)
    one_a_run = (FILE, "--set", "split.partitions=1")
    killer = Killer(project, NAME, one_a_run, seed=2)
    kinds = [ProcessKind.COMMAND] * 4 + [ProcessKind.WARM_WORKER] * 5 + [ProcessKind.CHILD] * 9
    killer.random.shuffle(kinds)
    for number, kind in enumerate(kinds):
        killer.kill_after(commits=number * days // (2 * len(kinds)), kind=kind)
    killer.finish()
    assert len(killer.killed) == len(kinds)
    assert undisturbed.start(*one_a_run).code == 0

    report = project.audit(NAME)
    assert (report.problems, report.gaps, report.duplicates) == ([], [], [])
    assert project.boundaries(NAME) == undisturbed.boundaries(NAME) == expected_boundaries(days, each=1)
    rows, _ = model(project)
    assert sorted(rows.tolist()) == list(range(days * ROWS_A_DAY))
    assert digest(project) == digest(undisturbed)


STAGES = """\
stages:
  base:
  fine: {init_from: {stage: base}}
  once: {init_from: {stage: base, once: true}}
"""


@pytest.mark.exhaustive
def test_kills_in_stages_that_fan_out_end_with_models_of_undisturbed_run(tmp_path: Path) -> None:
    """KILLS=100 makes it a storm."""
    kills = int(os.environ.get("KILLS", "14"))
    days = max(6, kills // 2)
    pipeline = PIPELINE.replace("split: {partitions: 3}", "split: {partitions: 1}") + STAGES
    undisturbed = tiny_project(tmp_path / "undisturbed", days=days, pipeline=pipeline)
    project = tiny_project(tmp_path / "killed", pipeline=pipeline, settings=PATIENT, days=days, samples_of=undisturbed)
    killer = Killer(project, NAME, (FILE,), seed=3)
    kinds = [
        killer.random.choice([ProcessKind.COMMAND, ProcessKind.WARM_WORKER, ProcessKind.CHILD, ProcessKind.CHILD])
        for _ in range(kills)
    ]
    for number, kind in enumerate(kinds):
        # the last one when half is trained: each has something to strike
        killer.kill_after(commits=number * 3 * days // (2 * kills), kind=kind)
    killer.finish()
    assert len(killer.killed) == kills
    assert undisturbed.start(FILE).code == 0

    for stage in ("base", "fine", "once"):
        report = project.audit(NAME, stage=stage)
        assert (report.problems, report.gaps, report.duplicates, report.partitions) == ([], [], [], days)
        assert contents(project, stage) == contents(undisturbed, stage)


CIRCLE = "stages:\n  first: {init_from: {stage: second}}\n  second: {init_from: {stage: first}}\n"
#: what the base commits is promoted
NEWEST = """\
stages:
  base: {promote: {alias: champion, when: loss is finite}}
  newest: {init_from: {stage: base, at: latest}}
  champion: {init_from: {stage: base, at: promoted}}
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize(("stages", "names"), [(CIRCLE, "first second"), (NEWEST, "base newest champion")])
def test_kills_of_everything_in_stages_end_with_models_of_undisturbed_run(
    tmp_path: Path, stages: str, names: str
) -> None:
    """KILLS=100 makes it a storm."""
    kills = int(os.environ.get("KILLS", "5"))
    days = max(6, kills // 2)
    chains = names.split()
    pipeline = PIPELINE.replace("split: {partitions: 3}", "split: {partitions: 1}") + stages
    undisturbed = tiny_project(tmp_path / "undisturbed", days=days, pipeline=pipeline)
    project = tiny_project(tmp_path / "killed", pipeline=pipeline, settings=PATIENT, days=days, samples_of=undisturbed)
    killer = Killer(project, NAME, (FILE,), seed=5)
    kinds = [
        killer.random.choice([ProcessKind.COMMAND, ProcessKind.WARM_WORKER, ProcessKind.CHILD, ProcessKind.CHILD])
        for _ in range(kills)
    ]
    for number, kind in enumerate(kinds):
        # the base may be far ahead of the others, and done
        killer.kill_after(commits=number * days // kills, kind=kind)
    killer.finish()
    assert len(killer.killed) == kills
    for stage in chains:
        report = project.audit(NAME, stage=stage)
        assert (report.problems, report.gaps, report.duplicates, report.partitions) == ([], [], [], days)
    if stages == CIRCLE:  # the others go on from what is the newest when they get to it
        assert undisturbed.start(FILE).code == 0
        assert [contents(project, stage) for stage in chains] == [contents(undisturbed, stage) for stage in chains]


def contents(project: LiveProject, stage: str) -> list[tuple[Any, ...]]:
    """What each checkpoint of a chain was trained on, and the digests of its files."""
    return [
        (each.split.start, each.split.end, each.split.digest, [file.sha256 for file in each.artifacts.files])
        for each in project.checkpoints(NAME, stage)
    ]


@pytest.mark.exhaustive
def test_engines_that_are_killed_while_they_start(tiny: LiveProject) -> None:
    chance = random.Random(7)
    tiny.cold = True
    for _ in range(6):
        running = tiny.begin_start(FILE)
        # from before the database is there to the first attempts
        looks = chance.randrange(200)

        def waited() -> bool:
            nonlocal looks
            looks -= tiny.home.path.exists()
            return looks < 0 or running.ended  # noqa: B023

        wait_for(waited, "the engine")
        running.kill()
    ended = tiny.start(FILE)
    assert ended.code == 0, ended.output
    assert_trained_exactly_once(tiny, days=9)
    tiny.wait_until_quiet()


#: notes what a fork of the process that imports this imports, and of which types it looks up the fields
IMPORTS = """
import msgspec._utils

class Noted:
    by = os.getpid()

    def find_spec(self, name, *_):
        if os.getpid() != self.by:
            note("lacks", name)

def looked_up(type, *given):
    if os.getpid() != Noted.by:
        note("lacks", str(type).replace(" ", ""))
    return look_up(type, *given)

look_up, msgspec._utils._eval_type = msgspec._utils._eval_type, looked_up
sys.meta_path.insert(0, Noted())
note("imports", os.getpid())
"""


@pytest.mark.exhaustive
def test_worker_that_replaces_killed_one_is_as_warm(tiny: LiveProject) -> None:
    source = (tiny.root / "operators/tiny.py").read_text().replace("import os\n", "import os\nimport sys\n")
    tiny.write("operators/tiny.py", source.replace("\n\ndef hold(", f"\n\n{IMPORTS}\n\ndef hold("))
    tiny.write("hold", "")
    running = tiny.begin_start(FILE, "--set", "split.partitions=1")
    wait_for(lambda: any(words[0] == "holding" for words in tiny.journal()), lambda: running.output)
    for number in (1, 2):
        tiny.wait_for_process(ProcessKind.WARM_WORKER).kill()
        said = "the warm worker ended unexpectedly: a new one is started"
        wait_for(lambda: tiny.engine_log().count(said) == number, tiny.engine_log)  # noqa: B023
    (tiny.root / "hold").unlink()
    ended = running.wait()
    assert ended.code == 0, ended.output
    # each worker imports once, and at the most a child or two that were forked before it had
    imports = [words for words in tiny.journal() if words[0] == "imports"]
    assert len(imports) <= 3 + 4, imports
    # nor is there anything that each of nine trainings does for itself
    lacking = Counter(words[1] for words in tiny.journal() if words[0] == "lacks")
    assert [name for name, times in lacking.items() if times > 4] == []


@pytest.mark.exhaustive
def test_chain_in_object_store_survives_whatever_is_killed(tmp_path: Path, s3: LocalS3) -> None:
    """A short one of `python -m tests.storm --store s3 --kills 60`."""
    played = Round(tmp_path, SHAPES["latest"], "5", place=Place(s3.make_url(), s3.storage_options), kills=6)
    try:
        found = played.run(0)
    finally:
        played.close()
    assert found.problems == []
    assert found.strikes.total() == 6
