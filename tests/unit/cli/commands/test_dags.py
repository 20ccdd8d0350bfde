from __future__ import annotations

import os

import pytest

from tests.support.control_plane import empty_task
from trainflow.cli.commands.dags import print_tree
from trainflow.messages.workload import ParseProblem
from trainflow.metadata.queries import dag_queries
from trainflow.serialization.document import ChainDocument

LIST_KEYS = {
    "dag_id",
    "path",
    "version",
    "is_paused",
    "missing_since",
    "parsed_at",
    "description",
    "tags",
    "max_active_runs",
    "tasks",
    "chain",
    "runs",
}


class TestList:
    def test_documented_keys(self, plane, cli):
        plane.add_dag("t", empty_task("x"), chain=ChainDocument("t", "main", "main", "s3://b"), tags=["ads"])
        plane.add_run("d")
        d, t = cli("dags", "list", "--json").json
        assert set(d) == LIST_KEYS
        assert (d["dag_id"], d["version"], d["tasks"], d["chain"], d["runs"]) == ("d", 1, 3, None, {"queued": 1})
        assert (t["chain"], t["tags"]) == ("t/main/main", ["ads"])

    def test_list_other_content_is_other_version(self, plane, cli):
        plane.add_dag("d", empty_task("a"))
        (d,) = cli("dags", "list", "--json").json
        assert (d["version"], d["tasks"]) == (2, 1)

    def test_list_before_first_read_is_empty(self, folder, cli):
        said = cli("dags", "list")
        assert (said.code, "no DAG has been read yet" in said.out) == (0, True)

    def test_list_gone_file_is_marked(self, plane, cli):
        with plane.database.transaction() as connection:
            dag_queries.mark_missing(connection, "pipelines/d.py", [], plane.clock.now())
        assert "no file defines it" in cli("dags", "list").out


class TestShow:
    def test_documented_keys(self, plane, cli):
        facts = cli("dags", "show", "d", "--json").json
        known = {"dag_id", "path", "version", "digest", "is_paused", "missing_since", "parsed_at", "document"}
        assert set(facts) == known
        assert [task["upstream"] for task in facts["document"]["tasks"]] == [[], ["a"], ["b"]]
        assert facts["document"]["params"] == {"rows": {"type": "integer", "default": 1}}

    def test_show_for_people_prints_text(self, plane, cli):
        out = cli("dags", "show", "d").out
        assert "└── b  (EmptyOperator)" in out
        assert "rows = 1" in out

    def test_show_docs_and_time_limits(self, plane, cli):
        task = empty_task("x", doc="    Reads them.\n    All of them.", execution_timeout_seconds=2700.0)
        plane.add_dag("t", task, doc="Counts flights.")
        out = cli("dags", "show", "t").out
        assert "\nCounts flights.\n\nx  (EmptyOperator, at most 45m00s)\n" in out
        assert "\nx\n  Reads them.\n  All of them.\n" in out

    def test_show_masks_secrets(self, plane, cli):
        chain = ChainDocument("t", "main", "main", "s3://b", storage_options={"key": "hush"})
        plane.add_dag("t", empty_task("x"), chain=chain)
        said = cli("dags", "show", "t", "--json")
        assert said.json["document"]["chain"]["storage_options"] == "***"
        assert "hush" not in said.out

    def test_file_that_no_engine_has_read(self, plane, folder, cli):
        (folder / "pipelines").mkdir()
        (folder / "pipelines" / "new.yaml").write_text("pipeline: new\n")
        said = cli("dags", "show", "new")
        assert said.code == 2
        assert "pipelines/new.yaml is there" in said.err


@pytest.mark.parametrize(
    ("edges", "lines"),
    [
        ({"a": [], "b": ["a"]}, ["a", "└── b"]),
        ({"a": [], "b": ["a"], "c": ["a"]}, ["a", "├── b", "└── c"]),
        ({"a": [], "b": ["a"], "c": ["a", "b"]}, ["a", "└── b", "    └── c"]),
        ({"a": [], "b": [], "c": ["a", "b"]}, ["a", "b", "└── c  (also after a)"]),
        ({"a": [], "b": ["a"], "c": ["a"], "d": ["b"]}, ["a", "├── b", "│   └── d", "└── c"]),
    ],
)
def test_tree_draws_edges(edges, lines, capsys):
    print_tree([{"task_id": name, "operator": "Op", "upstream": upstream} for name, upstream in edges.items()])
    shown = [line.replace("  (Op)", "").replace("(Op, ", "(") for line in capsys.readouterr().out.splitlines()]
    assert shown == lines


def test_tree_of_long_chain_is_neither_folded_nor_cut(capsys):
    tasks = [{"task_id": f"t{n}", "operator": "Op", "upstream": [f"t{n - 1}"] if n else []} for n in range(200)]
    print_tree(tasks)
    shown = [line.lstrip("└─ ") for line in capsys.readouterr().out.splitlines()]
    assert shown == [f"t{n}  (Op)" for n in range(200)]


def test_tree_of_task_that_looks_like_markup_prints_it(capsys):
    print_tree([{"task_id": "[red]x", "operator": ":smile:", "upstream": []}])
    assert capsys.readouterr().out == "[red]x  (:smile:)\n"


class TestPause:
    def test_pause_and_unpause(self, plane, cli, nudged):
        plane.add_run("d")
        assert cli("dags", "pause", "d").out == "d is paused now\n"
        assert cli("dags", "pause", "d").out == "d was paused already\n"
        assert cli("dags", "list", "--json").json[0]["is_paused"] is True
        plane.scheduler.sweep()
        assert plane.tick() == []
        assert cli("dags", "unpause", "d").code == 0
        plane.scheduler.sweep()
        assert len(plane.tick()) == 1
        assert nudged == [plane.project.home.socket_path] * 3

    def test_pause_of_unknown_dag_is_refused(self, plane, cli, nudged):
        assert cli("dags", "pause", "dd").code == 2
        assert nudged == []


class TestErrors:
    def test_errors_none_says_so(self, plane, cli):
        assert cli("dags", "errors").code == 0
        assert cli("dags", "errors", "--json").json == []

    def test_errors_some_are_listed(self, plane, folder, cli):
        (folder / "pipelines").mkdir()
        file = folder / "pipelines" / "x.yaml"
        file.touch()
        read_at = plane.clock.now().timestamp()
        os.utime(file, (read_at, read_at))
        problem = ParseProblem("pipelines/x.yaml:3:1: unknown key 'trian'", "Traceback …", line=3, column=1)
        with plane.database.transaction() as connection:
            dag_queries.store_problem(connection, "pipelines/x.yaml", problem, plane.clock.now())
        said = cli("dags", "errors", "--json")
        assert said.code == 1
        (row,) = said.json
        assert set(row) == {"path", "line", "column", "message", "traceback", "at", "is_changed"}
        assert (row["path"], row["line"]) == ("pipelines/x.yaml", 3)
        assert "unknown key 'trian'" in cli("dags", "errors").out
        assert "Traceback" not in cli("dags", "errors").out
        assert "Traceback" in cli("dags", "errors", "--traceback").out
        assert "1 pipeline file cannot be read" in cli("dags", "list").err
        os.utime(file, (read_at + 60, read_at + 60))
        told = f"recorded at {plane.clock.now():%H:%M} UTC, and the file has changed since"
        assert f"1 pipeline file could not be read: {told}" in cli("dags", "list").err
        assert f"{told}: pipelines/x.yaml:3:1" in cli("dags", "errors").out
        assert cli("dags", "errors", "--json").json[0]["is_changed"] is True

        (folder / "pipelines" / "x.yaml").unlink()
        assert (cli("dags", "errors").code, cli("dags", "list").err) == (0, "")
