"""What the README tells people to type does, on the example, what the README says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests import documents
from tests.support.live_project import Ended, LiveProject
from tests.support.ports import free_port
from tests.support.tiny_project import FILE as TINY_FILE
from tests.support.tiny_project import NAME as TINY
from tests.support.tiny_project import tiny_project
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.testing.processes import marked, wait_for

pytestmark = pytest.mark.slow

NAME = "flight_delay"
FORKED_AT = datetime(2013, 11, 19, tzinfo=UTC)


def trains_all_flights_in_27_runs(example: LiveProject, ended: Ended) -> None:
    assert "27 checkpoints committed" in ended.output
    assert "336,776 (" in ended.output
    assert len(example.boundaries(NAME)) == 27


def every_partition_once(_example: LiveProject, ended: Ended) -> None:
    assert re.search(r"trained +365 partitions", ended.output)
    assert re.findall(r"(?:gaps|duplicates|holes) +(\d+)", ended.output) == ["0", "0", "0"]


def one_sentence(_example: LiveProject, ended: Ended) -> None:
    assert ended.output.startswith("flight_delay: caught up at 2014-01-01")
    assert ended.output.count("\n") == 1


def undoes_four_checkpoints_if_it_were_done(example: LiveProject, ended: Ended) -> None:
    assert "would be rewound from checkpoint 27 to checkpoint 23" in ended.output
    assert "4 checkpoints undone: 27, 26, 25, 24" in ended.output
    assert example.checkpoints(NAME)[-1].watermark == datetime(2014, 1, 1, tzinfo=UTC)


def begins_a_branch(example: LiveProject, ended: Ended) -> None:
    assert "goes on from checkpoint 23" in ended.output
    assert "trainflow start flight_delay --branch hot" in ended.output


def trains_last_six_weeks_beside_the_chain(example: LiveProject, ended: Ended) -> None:
    assert "4 checkpoints committed" in ended.output
    assert len(example.boundaries(NAME)) == 27
    branch = Ledger(example.ledger(NAME).store, ChainKey(NAME, branch="hot"))
    splits = [entry.split for entry in branch.entries() if isinstance(entry, Checkpoint)]
    assert (splits[0].start, splits[-1].end) == (FORKED_AT, datetime(2014, 1, 1, tzinfo=UTC))


def scores_split_by_split(_example: LiveProject, ended: Ended) -> None:
    found = re.findall(r"^(2013-1[12]\S+) +([AB]) +([\d.]+) ", ended.output, re.MULTILINE)
    scores = {side: {upto: auc for upto, at, auc in found if at == side} for side in "AB"}
    assert len(scores["A"]) >= 3
    assert scores["A"].keys() == scores["B"].keys()
    assert scores["A"] != scores["B"]
    assert "365 partitions in common, 0 with another content" in ended.output


def every_partition_of_the_weights(_example: LiveProject, ended: Ended) -> None:
    assert "365 partitions, 336,776 rows (" in ended.output
    assert len(re.findall(r"^2013-\S+  201[34]-\S+  +\d+ ", ended.output, re.MULTILINE)) == 27


EXPECTED: dict[str, Callable[[LiveProject, Ended], None]] = {
    "trainflow start pipelines/flight_delay.yaml": trains_all_flights_in_27_runs,
    "trainflow audit flight_delay": every_partition_once,
    "trainflow why flight_delay": one_sentence,
    "trainflow checkpoints rewind flight_delay --before 2013-12-01 --dry-run": undoes_four_checkpoints_if_it_were_done,
    "trainflow checkpoints fork flight_delay --before 2013-12-01 --branch hot --set params.eta0=0.01": begins_a_branch,
    "trainflow start flight_delay --branch hot": trains_last_six_weeks_beside_the_chain,
    "trainflow checkpoints compare flight_delay main hot": scores_split_by_split,
    "trainflow audit flight_delay --lineage head": every_partition_of_the_weights,
}
#: what .ci/run does, and what runs until Ctrl-C
ELSEWHERE = {"trainflow ui", "pip install -e '.[examples]'", "pip install -e '.[test]'", "pytest", "trainflow mlflow"}


@pytest.mark.exhaustive
def test_commands_of_readme_do_what_their_text_says(example: LiveProject) -> None:
    commands = documents.commands((documents.ROOT / "README.md").read_text(encoding="utf-8"))
    example.cold = True  # as a person types them
    assert [command for command in commands if command not in ELSEWHERE] == list(EXPECTED)

    for command, check in EXPECTED.items():
        ended = example.run(*shlex.split(command)[1:])
        assert ended.code == 0, f"{command}\n{ended.output}"
        check(example, ended)


@pytest.mark.exhaustive
def test_commands_about_history_do_on_finished_chain_what_their_text_says(tmp_path: Path) -> None:
    """Those of docs/chains.md, in order: a chain of ten checkpoints, three days each."""
    text = (documents.ROOT / "docs" / "chains.md").read_text(encoding="utf-8")
    section = text.partition("## Rewind, fork, compare\n")[2].partition("\n## ")[0]
    commands = documents.commands(section)
    project = tiny_project(tmp_path / "tiny")
    assert project.start(TINY_FILE).code == 0
    said = {}
    for command in commands:
        ended = project.run(*shlex.split(command.replace("PIPELINE", TINY))[1:])
        assert ended.code == 0, f"{command}\n{ended.output}"
        said[command.replace(" PIPELINE", "")] = ended.output

    assert "would be rewound from checkpoint 10 to checkpoint 6" in said.pop(
        "trainflow checkpoints rewind --before 2024-01-20 --dry-run"
    )
    assert "2 checkpoints undone" in said.pop("trainflow checkpoints rewind --to 8")
    assert "2 checkpoints committed" in said.pop("trainflow start")
    assert "from checkpoint 6" in said.pop("trainflow checkpoints fork --from 6 --branch hot --set params.rate=0.1")
    assert "from checkpoint 6" in said.pop("trainflow checkpoints fork --before 2024-01-20 --branch cold")
    assert "4 checkpoints committed" in said.pop("trainflow start --branch hot")
    assert "30 partitions in common" in said.pop("trainflow checkpoints compare main hot")
    assert "18 partitions" in said.pop("trainflow audit --lineage 6")
    assert said == {}
    assert project.audit(TINY).partitions == 30


def test_mlflow_control_c_while_it_starts_ends_all_of_it(tiny: LiveProject) -> None:
    serving = tiny.begin("mlflow", "--port", str(free_port()), environ={"TRAINFLOW__TRACKING__ENABLED": "true"})
    wait_for(lambda: len(marked(tiny.mark)) > 1, "the process that makes MLflow's store")
    serving.control_c()

    assert serving.wait().code == 0
    assert marked(tiny.mark) == []
