from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trainflow.errors import PipelineFileError
from trainflow.pipeline_spec.load import content_of, json_schema, load_spec
from trainflow.pipeline_spec.model import PipelineSpec
from trainflow.pipeline_spec.quantities import Length
from trainflow.settings.project import Project, project_at

MINIMAL = """\
pipeline: tiny
samples:
  path: "data/date={start:%Y-%m-%d}/"
  length: 1d
  start: 2013-01-01
train:
  command: [python, train.py]
"""

Load = Callable[..., PipelineSpec]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "configs").mkdir()
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "configs" / "trainflow.toml").write_text("")
    return project_at(tmp_path)


@pytest.fixture
def load(project: Project) -> Load:
    def load(text: str = MINIMAL, **overrides: str) -> PipelineSpec:
        path = project.root / "pipelines" / "tiny.yaml"
        path.write_text(text)
        return load_spec(path, {key.replace("__", "."): value for key, value in overrides.items()}, project)

    return load


def problems_of(load: Load, *args: Any, **overrides: str) -> list[str]:
    with pytest.raises(PipelineFileError) as caught:
        load(*args, **overrides)
    return str(caught.value).splitlines()


class TestExecutor:
    def test_executor_of_section_else_of_stage(self, load: Load, project: Project) -> None:
        project.settings_file.write_text("[executors]\ngpu = {}\ncpu = {}\n")
        stage = load(MINIMAL + "  executor: gpu\nexecutor: cpu\n").stages["main"]
        assert (stage.executor, stage.train.executor, stage.commit.executor) == ("cpu", "gpu", None)

    def test_executor_that_is_not_configured_is_named_with_its_line(self, load: Load, project: Project) -> None:
        project.settings_file.write_text("[executors]\ngpu = {}\n")
        [problem] = problems_of(load, MINIMAL + "  executor: gpo\n")
        assert problem.endswith("tiny.yaml:8:13: train.executor: no executor is called 'gpo'; did you mean 'gpu'?")


def test_minimal_file_says_everything_that_must_be_said(load: Load) -> None:
    spec = load()
    stage = spec.stages["main"]
    assert (spec.pipeline, spec.branch, list(spec.stages), stage.mode) == ("tiny", "main", ["main"], "backfill")
    assert spec.stages["main"].samples.start == datetime(2013, 1, 1, tzinfo=UTC)
    assert spec.stages["main"].samples.length == Length(seconds=86_400)
    assert spec.stages["main"].train.command == ["python", "train.py"]


def test_short_forms_mean_long_ones(load: Load) -> None:
    spec = load(
        MINIMAL.replace("  length", "  checks: {columns: [a, b], ranges: {a: [0, null]}}\n  length")
        + "store: s3://bucket/x\nsplit: {bytes: 2GiB}\n"
    )
    assert spec.stages["main"].store is not None
    assert spec.stages["main"].store.url == "s3://bucket/x"
    assert spec.stages["main"].samples.checks is not None
    assert spec.stages["main"].samples.checks.columns == {"a": None, "b": None}
    assert spec.stages["main"].samples.checks.ranges == {"a": (0, None)}
    assert spec.stages["main"].split.bytes == 2 * 2**30


def test_load_all_problems_are_told_with_places(load: Load) -> None:
    told = problems_of(
        load,
        "pipelin: x\n"
        "mode: latset\n"
        "samples:\n"
        "  lenght: 1d\n"
        "  files: '*'\n"
        "  start: 2013-13-01\n"
        "  ready: {min_files: 0, stable: 10}\n"
        "train: {function: nowhere.at_all:train}\n"
        "retries: true\n",
    )
    places = [line.split(": ")[0].removeprefix("pipelines/tiny.yaml:") for line in told]
    assert places == ["1:1", "2:7", "3:1", "4:3", "6:10", "7:22", "7:33", "8:19", "9:10"]
    assert "unknown key 'pipelin' in the pipeline file; did you mean 'pipeline'?; allowed: pipeline, " in told[0]
    assert "mode: expected backfill or latest; got 'latset' (text); did you mean 'latest'?" in told[1]
    assert "section 'samples' lacks the key 'path'" in told[2]
    assert "unknown key 'lenght' in section 'samples'; did you mean 'length'?" in told[3]
    assert "'2013-13-01' is not a date" in told[4]
    assert "samples.ready.min_files: should be greater than or equal to 1; got 0" in told[5]
    assert "10 is not a duration" in told[6]
    assert "there is no 'nowhere' in the project" in told[7]
    assert "retries: expected a whole number; got true" in told[8]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("split: 14", "9:8: split: expected a section of keys (partitions, rows, bytes, target); got 14 (a number)"),
        ("split:", "9:7: split: expected a section of keys (partitions, rows, bytes, target); got nothing"),
        ("gates: auc", "9:8: gates: expected a list; got 'auc' (text); write [\"auc\"]"),
        ("promote: best", "9:10: promote: expected a section of keys (alias, when), or a list of such; got 'best'"),
        ("split {rows: 3}", "9:1: 'split {rows' is no key: a ':' is missing after 'split'"),
        ("params: {\n  a: 1", "11:1: not valid YAML: while parsing a flow mapping did not find"),
        ("split:\n\trows: 3", "10:1: not valid YAML: a tab: YAML is indented with spaces"),
        ("retention: {keep_best: auc}", "9:24: retention.keep_best: expected a section of keys (metric, "),
        ("description: 3", "9:14: description: expected text (quote it); got 3 (a number)"),
        ("branch: a/b", "9:9: branch: 'a/b' cannot name"),
        ("commit: {nodes: 2}", "9:10: unknown key 'nodes' in section 'commit'; allowed: retries"),
        ("evaluate: {}", "9:1: section 'evaluate' lacks the key 'function'"),
        ("store: {ulr: x}", "9:9: unknown key 'ulr' in section 'store'; did you mean 'url'?; allowed: url, "),
        ("init_from: a/b/c/d", "9:12: init_from='a/b/c/d' names no checkpoint: write 'pipeline/stage/branch'"),
        ("retry_delay: -1s", "9:14: retry_delay: '-1s' is not a duration"),
        ("retries: 1.5", "9:10: retries: expected a whole number; got 1.5"),
        ("commit: {timeout: 0s}", "9:19: commit.timeout: must be longer than nothing"),
        ("store: s3:/b/x", "9:8: store.url: 's3:' is not followed by '//'; did you mean 's3://b/x'?"),
        ("store: s3://K:topsecret@b/x", "9:8: store.url: the store s3://K:***@b/x has credentials in its URL"),
        ("samplse: {}", "9:1: unknown key 'samplse' in the pipeline file; did you mean 'samples'?"),
    ],
)
def test_load_wrong_line_is_named(load: Load, line: str, told: str) -> None:
    (problem,) = problems_of(load, MINIMAL + "tags: []\n" + line + "\n")
    assert problem.startswith(f"pipelines/tiny.yaml:{told}")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("command: [python, train.py]", "retries: 1", "give either 'function' or 'command'"),
        ("command: [python, train.py]", "{command: [x], function: 'json:loads'}", "give either"),
        (
            "command: [python, train.py]",
            "command: [x]\n  nodes: 0",
            "train.nodes: should be greater than or equal to 1",
        ),
        ("command: [python, train.py]", "command: [x]\n  nodes: 1.5", "train.nodes: expected a whole number; got 1.5"),
        ("command: [python, train.py]", "command: python train.py", "train.command: expected a list"),
        ("command: [python, train.py]", "command: python 'a b.py'", '(text); write ["python", "a b.py"]'),
        ("start: 2013-01-01", "start: 2013-01-01\n  end: 2013-01-01", "'end' must be after 'start'"),
        ("length: 1d", "length: 1h", "samples.path 'data/date={start:%Y-%m-%d}/' is ambiguous"),
        ("length: 1d", "length: 30s", "samples.length: a partition is at least 1m long"),
        ("length: 1d", "length: 1M", "samples.length: '1M' is not a length; write a fixed length"),
        ("length: 1d", "length: 1d\n  checks: {ranges: {a: [3, 1]}}", "the smallest value 3 is above the largest 1"),
        ("length: 1d", "length: 1d\n  checks: {ranges: {a: 3}}", "write [smallest, largest]"),
        ("length: 1d", "length: 1d\n  checks: {nulls: {a: 1.5}}", "less than or equal to 1"),
        ("length: 1d", "length: 1d\n  checks: {columns: {a: dobule}}", "'dobule'; did you mean 'double'?"),
        ("length: 1d", "length: 1d\n  checks: {columns: {a: float64}}", "'float64'; did you mean 'double'?"),
        (
            "length: 1d",
            "length: 1d\n  checks: {columns: {a: xyz}}",
            "no Arrow type is called 'xyz'; for example int64",
        ),
        ("length: 1d", "length: 1d\n  ready: _SUCCESS", "samples.ready: expected a section of keys (marker, "),
        ("length: 1d", "length: 1d\n  checks: {columns: [a, 3]}", "samples.checks.columns: expected a section"),
    ],
)
def test_load_wrong_section_is_named(load: Load, old: str, new: str, told: str) -> None:
    (problem,) = problems_of(load, MINIMAL.replace(old, new))
    assert told in problem
    assert problem.startswith("pipelines/tiny.yaml:")


@pytest.mark.parametrize(
    ("path", "length", "start", "told"),
    [
        ("data/*/{start:%F}/", "1d", "2013-01-01", "3:9: samples.path 'data/*/{start:%F}/' has '*' in it"),
        ("data/{start:%F}/", "1h", "2013-01-01", "4:11: samples.length: samples.path 'data/{start:%F}/' is ambiguous"),
        ("data/{start:%F}/", "36h", "2013-01-01", "4:11: samples.length: samples.path 'data/{start:%F}/' tells days"),
        ("data/{start:%Y-%m}/", "31d", "2013-01-01", "4:11: samples.length: samples.path 'data/{start:%Y-%m}/' tells"),
        ("data/{start:%F}/", "1d", "2013-01-01T00:30", "5:10: samples.start 2013-01-01T00:30Z is inside of what"),
        ("data/{start:%F}/", "1mo", "2013-01-31", "5:10: samples.start 2013-01-31T00:00Z is day 31 of a month"),
    ],
)
def test_grid_that_cannot_be_is_told_at_its_line(load: Load, path: str, length: str, start: str, told: str) -> None:
    text = MINIMAL.replace("data/date={start:%Y-%m-%d}/", path).replace("1d", length).replace("2013-01-01", start)
    (problem,) = problems_of(load, text)
    assert problem.startswith(f"pipelines/tiny.yaml:{told}")


def test_load_file_per_partition_has_no_glob_or_common_marker(load: Load) -> None:
    text = MINIMAL.replace("data/date={start:%Y-%m-%d}/", "data/{start:%F}.parquet")
    assert load(text).stages["main"].samples.path == "data/{start:%F}.parquet"
    for more, told in (
        ("files: part-*.parquet", "has nothing to choose"),
        ("ready: {marker: DONE}", "for all partitions"),
    ):
        (problem,) = problems_of(load, text.replace("  length", f"  {more}\n  length"))
        assert told in problem


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n"])
def test_file_that_is_no_section_is_refused(load: Load, text: str) -> None:
    (problem,) = problems_of(load, text)
    assert "pipelines/tiny.yaml:1:1: a pipeline file is a section of keys" in problem


def test_file_that_cannot_be_read_says_so(project: Project) -> None:
    with pytest.raises(PipelineFileError, match=r"^pipelines/none\.yaml: cannot be read: No such file"):
        load_spec(project.root / "pipelines" / "none.yaml", {}, project)
    latin = project.root / "pipelines" / "latin.yaml"
    latin.write_bytes("description: caf\xe9".encode("latin-1"))
    with pytest.raises(PipelineFileError, match="not UTF-8 text"):
        load_spec(latin, {}, project)


# -- overrides -----------------------------------------------------------------------------------------------------


def test_overrides_are_read_as_yaml_and_reach_any_depth(load: Load) -> None:
    spec = load(
        split__partitions="7",
        params__model__alpha="0.1",
        samples__end="2013-02-01",
        samples__ready__stable="5m",
        tags="[a, b]",
        retries="0",
    )
    assert spec.stages["main"].split.partitions == 7
    assert spec.stages["main"].params == {"model": {"alpha": 0.1}}
    assert spec.stages["main"].samples.end == datetime(2013, 2, 1, tzinfo=UTC)
    assert spec.stages["main"].samples.ready.stable == timedelta(minutes=5)
    assert (spec.tags, spec.stages["main"].retries) == (["a", "b"], 0)


def test_override_with_nothing_is_null(load: Load) -> None:
    assert load(MINIMAL + "evaluate: {function: 'json:loads'}\n", evaluate="").stages["main"].evaluate is None


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"split.partitons": "7"}, "--set split.partitons=7: unknown key 'partitons' in section 'split'; did you mean"),
        ({"split.partitions": "x"}, "--set split.partitions=x: split.partitions: expected a whole number; got 'x'"),
        ({"split": "{rows: 0}"}, "--set split={rows: 0}: split.rows: should be greater than or equal to 1"),
        ({"samples.start": "["}, "--set samples.start=[: not valid YAML"),
        ({"a..b": "1"}, "--set a..b=1: name the key with dots"),
        ({"pipeline.x": "1"}, "--set pipeline.x=1: 'pipeline' is 'tiny' (text) and has no keys"),
        ({"samples.length": ""}, "--set samples.length=: samples.length: None is not a length"),
        ({"mode": "never"}, "--set mode=never: mode: expected backfill or latest"),
    ],
)
def test_load_wrong_override_is_its_own_place(project: Project, overrides: dict[str, str], told: str) -> None:
    path = project.root / "pipelines" / "tiny.yaml"
    path.write_text(MINIMAL)
    with pytest.raises(PipelineFileError) as caught:
        load_spec(path, overrides, project)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


# -- parameters ----------------------------------------------------------------------------------------------------


def test_parameters_of_config_lie_underneath_those_of_pipeline(load: Load, project: Project) -> None:
    (project.root / "configs" / "m.yaml").write_text("model: {alpha: 1, beta: 2}\nseeds: [1, 2]\nsince: 2013-01-01\n")
    spec = load(MINIMAL + "config: configs/m.yaml\nparams: {model: {beta: 3}, seeds: [9]}\n", params__model__gamma="4")
    expected = {"model": {"alpha": 1, "beta": 3, "gamma": 4}, "seeds": [9], "since": "2013-01-01"}
    assert spec.stages["main"].params == expected


def test_override_chooses_config(load: Load, project: Project) -> None:
    (project.root / "configs" / "a.yaml").write_text("x: 1\n")
    (project.root / "configs" / "b.yaml").write_text("x: 2\n")
    assert load(MINIMAL + "config: configs/a.yaml\n", config="configs/b.yaml").stages["main"].params == {"x": 2}


def test_problems_of_config_are_told_where_they_are(load: Load, project: Project) -> None:
    (project.root / "configs" / "m.yaml").write_text("x: 1\nx: 2\n")
    (project.root / "configs" / "list.yaml").write_text("- 1\n")
    assert problems_of(load, MINIMAL, config="configs/m.yaml") == [
        "configs/m.yaml:2:1: key 'x' is written twice, first in line 1"
    ]
    (listed,) = problems_of(load, MINIMAL, config="configs/list.yaml")
    assert listed.startswith("configs/list.yaml:1:1: a file of parameters is a section of keys")
    (absent,) = problems_of(load, MINIMAL + "config: configs/n.yaml\n")
    assert absent.startswith("pipelines/tiny.yaml:8:9: config: cannot read 'configs/n.yaml'")
    assert absent.endswith("did you mean 'm.yaml'?")


def test_empty_config_is_no_parameters(load: Load, project: Project) -> None:
    (project.root / "configs" / "empty.yaml").write_text("# nothing yet\n")
    assert load(MINIMAL, config="configs/empty.yaml").stages["main"].params == {}


# -- content and schema --------------------------------------------------------------------------------------------


def test_load_content_depends_on_meaning_not_writing(load: Load) -> None:
    plain = content_of(load())
    assert content_of(load(MINIMAL.replace("length: 1d", "length: 24h  # a day") + "mode: backfill\n")) == plain
    assert content_of(load(params__x="1")) != plain
    assert plain.startswith("sha256:")


def test_schema_describes_every_key_it_allows() -> None:
    schema = json_schema()
    json.dumps(schema)
    for section in [schema, *schema["$defs"].values()]:
        assert section["additionalProperties"] is False
        assert section.get("description"), section["title"]
        for name, key in section["properties"].items():
            assert key.get("description"), f"{section['title']}.{name}"
    assert schema["anyOf"] == [{"required": ["pipeline", "samples", "train"]}, {"required": ["pipeline", "stages"]}]


def test_slip_in_name_of_parameter_is_told(load: Load, project: Project) -> None:
    text = MINIMAL + "params: {rate: 0.1, tree: {depth: 3}}\nconfig: configs/m.yaml\n"
    (project.root / "configs" / "m.yaml").write_text("rounds: 5\n")
    (problem,) = problems_of(load, text, params__rat="1")
    assert problem.startswith("--set params.rat=1: there is no parameter 'rat'; did you mean 'rate'?; a new one is ")
    for slip in ("params__tree__depht", "params__round"):
        (problem,) = problems_of(load, text, **{slip: "1"})
        assert "did you mean" in problem
    for fine in ("params__rate", "params__tree__depth", "params__rounds", "params__colour"):
        load(text, **{fine: "1"})


@pytest.mark.parametrize(
    "name", ["int64", "timestamp[us]", "timestamp[us, tz=UTC]", "decimal128(38, 2)", "list<item: int8>"]
)
def test_names_of_arrow_types_are_those_that_arrow_prints(load: Load, name: str) -> None:
    load(MINIMAL.replace("length: 1d", f"length: 1d\n  checks: {{columns: {{a: '{name}'}}}}"))


def test_arrow_type_prints_as_written() -> None:
    import pyarrow as pa

    from trainflow.pipeline_spec.fields import _ARROW_TYPES

    made = [pa.null(), pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.string()]
    made += [
        pa.large_string(),
        pa.binary(),
        pa.date32(),
        pa.date64(),
        pa.timestamp("us"),
        pa.time32("s"),
        pa.time64("ns"),
    ]
    assert {str(each) for each in made} <= set(_ARROW_TYPES)


@pytest.mark.parametrize("written", ["m.f.train", "m.f:train"])
def test_load_function_without_its_section_says_how_to_write_it(load: Load, written: str) -> None:
    (problem,) = problems_of(load, MINIMAL + f"evaluate: {written}\n")
    assert problem.startswith("pipelines/tiny.yaml:8:11: evaluate: expected a section of keys (")
    assert problem.endswith("; write {function: m.f:train}")
