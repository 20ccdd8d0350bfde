"""The example in YAML and the example in Python are the same pipeline: same splits, same model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.live_project import LiveProject
from tests.support.tiny_project import digest

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

PYTHON = "pipelines/flight_delay_dag.py"


def test_python_form_trains_same_model_as_yaml_form(example: LiveProject, tmp_path: Path) -> None:
    ended = example.start("pipelines/flight_delay.yaml", "--set", "samples.end=2013-01-29")
    assert ended.code == 0, ended.output
    in_yaml = example.boundaries("flight_delay"), digest(example, "flight_delay")
    assert len(in_yaml[0]) == 2

    # the seed of a training is that of its chain: the same chain, in a store of its own
    text = (example.root / PYTHON).read_text()
    for old, new in [
        ("end=datetime(2014, 1, 1, tzinfo=UTC)", "end=datetime(2013, 1, 29, tzinfo=UTC)"),
        ("CheckpointOperator()", "CheckpointOperator(pipeline='flight_delay', store='elsewhere')"),
    ]:
        assert old in text
        text = text.replace(old, new)
    example.write(PYTHON, text)
    ended = example.start(PYTHON)
    assert ended.code == 0, ended.output
    (example.root / "checkpoints").rename(example.root / "of the YAML form")
    (example.root / "elsewhere").rename(example.root / "checkpoints")

    assert (example.boundaries("flight_delay"), digest(example, "flight_delay")) == in_yaml
    assert example.audit("flight_delay").ok


def test_example_with_stages_trains_model_for_each_airport(example: LiveProject) -> None:
    ended = example.start("pipelines/flight_delay_stages.yaml", "--set", "samples.end=2013-02-26")
    assert ended.code == 0, ended.output
    name = "flight_delay_stages"
    ends = [each.watermark for each in example.checkpoints(name, "base")]
    rows: dict[str, float] = {}
    for airport in ("ewr", "jfk", "lga"):
        made = example.checkpoints(name, airport)
        assert [each.watermark for each in made] == ends
        assert [each.origin.checkpoint_id for each in made if each.origin] == [
            each.id for each in example.checkpoints(name, "base")
        ]
        assert example.audit(name, stage=airport).ok
        rows[airport] = made[-1].metrics["trained_rows"]
    # every flight of the last split is some airport's
    assert sum(rows.values()) == example.checkpoints(name, "base")[-1].metrics["trained_rows"]
