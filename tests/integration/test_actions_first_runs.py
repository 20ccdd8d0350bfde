"""What `trainflow start` begins of a pipeline with stages: the ledgers decide, whatever the database knows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from tests.integration.first_runs_home import FILE, LINE, NOW, TASK, Home
from trainflow.actions.chains.promote import trigger_dependents
from trainflow.actions.chains.repair import begin_repair_of
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, Checkpoint
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.insight.chains.known_chains import known_chain
from trainflow.insight.runs.dags import dag_rows
from trainflow.insight.snapshot import EngineSnapshot, dag_snapshots
from trainflow.messages.execution_api import TriggeredRun, XComItem
from trainflow.messages.notice import XCOM_MORE
from trainflow.messages.workload import DagSource
from trainflow.metadata import run_creation, schema
from trainflow.metadata.database import Database
from trainflow.metadata.queries import dag_queries, run_queries, task_queries, xcom_queries
from trainflow.settings.model import Settings
from trainflow.settings.project import project_at
from trainflow.testing.chains import day
from trainflow.workspace.workspace import Workspace


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    (tmp_path / "configs").mkdir()
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "configs" / "trainflow.toml").write_text("")
    project = project_at(tmp_path)
    database = Database.of(project.home, Settings())
    schema.ensure_schema(database)
    yield Home(project, database)
    database.close()


def test_start_of_stages_begins_only_roots_at_first(home: Home) -> None:
    more = "  once: {init_from: {stage: base, once: true}}\n  newest: {init_from: {stage: base, at: latest}}\n"
    home.read(LINE + more)
    assert home.begin() == {"p.base": {}}
    # all of them are followed, the base first; they have ended when no run is left of any
    assert [following.dag_id for following in home.followings] == ["p.base", "p.fine", "p.newest", "p.once"]
    with home.database.reading() as connection:
        views = [following.look(connection, NOW) for following in home.followings]
    assert [view.finished for view in views] == [False] * 4


def test_start_with_stage_behind_begins_it_from_newest_checkpoint_of_base(home: Home) -> None:
    home.read(LINE)
    for _ in range(3):
        newest = home.commit("base")
    pinned = {"pipeline": "p", "stage": "base", "branch": "main", "id": newest.id, "number": 3}
    assert home.begin() == {"p.base": {}, "p.fine": {"init_from": pinned}}
    # what is begun is not begun again
    assert home.begin() == {}


def test_stage_that_is_not_behind_is_not_begun(home: Home) -> None:
    home.read(LINE)
    home.commit("base")
    home.commit("fine")
    assert home.begin() == {"p.base": {}}
    with home.database.reading() as connection:
        fine = home.followings[1].look(connection, NOW)
    assert (fine.dag_id, fine.watermark, fine.last_run) == ("p.fine", day(1), None)


def test_run_that_committed_triggers_stage_itself(home: Home) -> None:
    home.read(LINE)
    key = home.run("p.base", "r1")
    home.commit("base", run_id="r1")
    assert home.begin() == {}
    home.end(key)
    # it has ended, and what it triggered is not there
    assert list(home.begin()) == ["p.base", "p.fine"]


def test_start_after_failed_stage_begins_it_while_base_goes_on(home: Home) -> None:
    home.read(LINE)
    home.commit("base", run_id="r1")
    key = home.run("p.base", "r1")
    with home.database.transaction() as connection:
        parent = run_creation.Parent(key, key, "next_fine", -1)
        run_creation.trigger(connection, TriggeredRun("p.fine", "told", {}), parent, NOW)
        child = run_queries.get(connection, "p.fine", "told")
        run_queries.cancel(connection, child, dag_queries.Versions(), NOW, note="", channels=())
    assert list(home.begin()) == ["p.fine"]


def test_start_of_once_stage_that_has_begun_is_on_its_own(home: Home) -> None:
    home.read("  base:\n  fine: {init_from: {stage: base, once: true}}\n")
    home.commit("base")
    assert home.begin() == {"p.base": {}}
    home.commit("fine")
    assert home.begin() == {"p.fine": {}}


@pytest.mark.parametrize(
    ("commits", "begun"),
    [
        ([], ["p.day"]),
        (["day"], ["p.fine"]),
        (["day", "fine"], ["p.day"]),
        (["day", "fine", "day"], ["p.fine"]),
    ],
)
def test_circle_goes_on_where_it_was_left(home: Home, commits: list[str], begun: list[str]) -> None:
    home.read("  day: {init_from: {stage: fine}}\n  fine: {init_from: {stage: day}}\n")
    for stage in commits:
        home.commit(stage)
    assert list(home.begin()) == begun


def test_stage_of_another_pipeline_finds_out_by_itself(home: Home) -> None:
    home.read("  fine: {init_from: {pipeline: other, stage: base}}\n")
    assert home.begin() == {"p.fine": {}}


def test_start_begins_branch_it_was_asked_for_whatever_was_read_last(home: Home) -> None:
    """By a host whose clock is ahead, or while this start was on its way."""
    home.read("  base:\n", now=NOW + timedelta(minutes=5))
    home.read("  base:\n", branch="hot")
    with home.database.reading() as connection:
        assert dag_queries.overrides_of(connection, FILE) == {"branch": "hot"}
    home.read("  base:\n")
    home.overrides = {"branch": "hot"}
    assert home.begin() == {"p.base.hot": {}}
    # the branch that the file itself trains, by its name
    home.overrides = {"branch": "main"}
    assert home.begin() == {"p.base": {}}


@pytest.mark.parametrize(
    ("samples", "confs"), [("running", [{"repair": "first"}]), ("skipped", [{"repair": True}, {}])]
)
def test_repair_is_heard_by_run_under_way_or_begins_another(
    home: Home, samples: str, confs: list[dict[str, Any]]
) -> None:
    home.read("  base:\n")
    home.run("p.base", "first")
    with home.database.transaction() as connection:
        connection.execute(update(TASK).where(TASK.c.task_id == "samples").values(state=samples))
    begin_repair = begin_repair_of("p.base", skipped=False)
    begin_repair(Workspace(home.project, Settings(), home.database), DagSource(FILE), NOW)
    assert [row.conf for row in home.runs()] == confs


def test_base_that_was_rewound_is_waited_for(home: Home) -> None:
    home.read(LINE)
    first, *_ = [home.commit("base") for _ in range(3)]
    for _ in range(3):
        home.commit("fine")
    ledger = home.writer("base").ledger
    rewind(ledger, first.id, expected_head=ledger.checkpoint().id, by=Author(), now=NOW)
    assert home.begin() == {"p.base": {}}


def test_runs_of_before_are_not_part_of_what_is_followed(home: Home) -> None:
    home.read(LINE)
    home.run("p.fine", "before", end=True)
    home.begin()
    with home.database.reading() as connection:
        views = [following.look(connection, NOW + timedelta(seconds=1)) for following in home.followings]
    assert [view.new_runs for view in views] == [[], []]


def test_start_following_live_engine_tells_only_news(home: Home) -> None:
    home.read(LINE)
    first = home.run("p.base", "first", end=True)
    second = home.run("p.base", "second")
    with home.database.transaction() as connection:
        connection.execute(update(run_queries.RUN).where(run_queries.RUN.c.id == second).values(root_id=first))
    assert home.begin() == {}
    [base, fine] = home.followings
    with home.database.reading() as connection:
        view = base.look(connection, NOW + timedelta(seconds=1))
        assert (view.new_runs, view.joined, view.current_number, view.finished) == ([], True, 2, False)
        assert not fine.look(connection, NOW).joined
    home.end(second)
    with home.database.reading() as connection:
        view = base.look(connection, NOW + timedelta(seconds=2))
    assert ([run.run_id for run in view.new_runs], view.finished) == (["second"], True)


def test_start_following_runs_that_a_person_queued_tells_all_of_them(home: Home) -> None:
    home.read(LINE)
    keys = [home.run("p.base", name) for name in ("one", "two", "three")]
    with home.database.transaction() as connection:
        parent = run_creation.Parent(keys[1], keys[1], "told", -1)
        run_creation.trigger(connection, TriggeredRun("p.fine", "of_two", {}), parent, NOW)
        other = run_queries.get(connection, "p.fine", "of_two")
        run_queries.start(connection, other, dag_queries.Versions(), NOW, channels=())
    assert home.begin() == {}
    told: list[str] = []
    for key in keys:
        home.end(key)
        with home.database.reading() as connection:
            view = home.followings[0].look(connection, NOW + timedelta(seconds=1))
        told += [run.run_id for run in view.new_runs]
    assert (told, view.finished) == (["one", "two", "three"], False)
    home.end(other.id)
    with home.database.reading() as connection:
        views = [each.look(connection, NOW + timedelta(seconds=2)) for each in home.followings]
    assert [([run.run_id for run in view.new_runs], view.finished) for view in views] == [
        ([], True),
        (["of_two"], True),
    ]


def test_start_following_cleared_run_says_where_the_ledger_is(home: Home) -> None:
    home.read("  base:\n")
    # of the first, the commit was cleared after two others had ended: it finds again what it has committed
    first = home.run("p.base", "first")
    made = [home.commit("base") for _ in range(3)]
    for name in ("second", "third"):
        home.run("p.base", name, end=True)
    with home.database.transaction() as connection:
        for task_id, value in _handed_over(made[0]).items():
            item = XComItem("return_value", msgspec.Raw(msgspec.json.encode(value)))
            xcom_queries.put(connection, first, task_id, -1, [item], NOW)
    assert home.begin() == {}
    [base] = home.followings
    with home.database.reading() as connection:
        view = base.look(connection, NOW)
    uri = home.store.uri(made[2].artifacts.path)
    assert (view.joined, view.new_runs, view.watermark, view.trained, view.head_uri) == (True, [], day(3), 3, uri)
    home.end(first)
    with home.database.reading() as connection:
        view = base.look(connection, NOW + timedelta(seconds=1))
    assert ([run.number for run in view.new_runs], view.finished) == ([1], True)
    assert (view.watermark, view.trained, view.head_uri) == (day(3), 3, uri)
    # nothing was committed while it was followed
    assert (view.runs, view.rows) == (0, 0)
    # what it triggered has ended long ago: only another start goes on
    assert base.breaks_off is not None
    assert base.breaks_off.number == 1


@pytest.mark.parametrize(("more", "breaks_off"), [(True, True), (False, False)])
def test_start_of_stage_that_has_come_as_far_as_its_upstream_ends(home: Home, more: bool, breaks_off: bool) -> None:
    """It is the upstream that triggers it again. Begun again, it would say once more that nothing is due."""
    home.read(LINE)
    made = home.commit("base")
    run = home.run("p.fine", "first")
    said = {"return_value": _handed_over(made)["commit"], XCOM_MORE: more}
    with home.database.transaction() as connection:
        items = [XComItem(key, msgspec.Raw(msgspec.json.encode(value))) for key, value in said.items()]
        xcom_queries.put(connection, run, "commit", -1, items, NOW)
    assert home.begin() == {"p.base": {}}
    [fine] = [each for each in home.followings if each.dag_id == "p.fine"]
    home.end(run)
    with home.database.reading() as connection:
        fine.look(connection, NOW + timedelta(seconds=1))
    assert (fine.last_run is not None, fine.breaks_off is not None) == (True, breaks_off)


@pytest.mark.parametrize(("changed", "looks_anew"), [(True, True), (False, False)])
def test_start_after_change_of_pipeline_has_its_wait_for_samples_look_anew(
    home: Home, changed: bool, looks_anew: bool
) -> None:
    """A person adds a marker's name and starts again: the wait would go on for the old one."""
    home.read("  base:\n")
    run = home.run("p.base", "first")
    with home.database.transaction() as connection:
        connection.execute(update(TASK).where(TASK.c.task_id == "samples").values(state="deferred"))
    if changed:
        home.read("  base: {samples: {ready: {marker: DONE}}}\n")

    assert home.begin() == {}
    with home.database.reading() as connection:
        states = task_queries.states_in_run(connection, run)
        assert (states["samples"], states["train"]) == (None if looks_anew else "deferred", None)
        assert run_queries.by_id(connection, run).state == ("queued" if looks_anew else "running")


def test_start_follows_a_run_of_a_version_that_cannot_be_read(home: Home) -> None:
    """The scheduler fails it, which is how the chain gets on: a start that fails would keep it from doing so."""
    home.read("  base:\n")
    home.run("p.base", "first")
    with home.database.transaction() as connection:
        connection.execute(update(dag_queries.VERSION).values(document='{"tasks": 7}'))
    home.read("  base: {samples: {ready: {marker: DONE}}}\n")
    assert home.begin() == {}
    assert [each.dag_id for each in home.followings] == ["p.base"]


def test_dag_of_a_version_that_cannot_be_read_keeps_no_other_from_being_shown_or_begun(home: Home) -> None:
    home.read("  base:\n  fine: {init_from: {stage: base, at: promoted}}\n")
    home.commit("base")
    with home.database.transaction() as connection:
        base = dag_queries.get(connection, "p.base").version_id
        statement = update(dag_queries.VERSION).where(dag_queries.VERSION.c.id == base)
        connection.execute(statement.values(document='{"tasks": 7}'))
    workspace = Workspace(home.project, Settings(), home.database)
    assert [row.document.dag_id for row in dag_rows(workspace)] == ["p.base", "p.fine"]
    assert str(known_chain(workspace, ChainKey("p", "fine")).chain.key) == "p/fine/main"
    begun = trigger_dependents(workspace, ChainKey("p", "base"), "champion", NOW)
    assert [(each.dag_id, each.what) for each in begun] == [("p.fine", "waits")]
    with home.database.reading() as connection:
        shown = dag_snapshots(connection, Settings(), EngineSnapshot(), NOW)
    assert [each.dag_id for each in shown] == ["p.base", "p.fine"]


def _handed_over(made: Checkpoint) -> dict[str, dict[str, Any]]:
    """What the tasks of the run that committed it have returned."""
    head = {"generation": 0, "number": 0, "watermark": None, "uri": None}
    committed = {"number": made.sequence, "watermark": made.watermark.isoformat(), "uri": made.artifacts.path}
    return {"checkpoint": head, "samples": {"partitions": 1, "rows": 40}, "commit": committed}


def test_start_over_ledger_that_lost_its_end_says_what_this_home_committed(home: Home) -> None:
    home.read("  base:\n")
    key = home.run("p.base", "first", end=True)
    committed = {"pipeline": "p", "stage": "base", "branch": "main", "id": "c", "uri": "u", "watermark": "w"}
    with home.database.transaction() as connection:
        item = XComItem("return_value", msgspec.Raw(msgspec.json.encode(committed | {"number": 2})))
        xcom_queries.put(connection, key, "commit", -1, [item], NOW)
    home.commit("base")
    home.begin()
    (feed,) = home.followings
    assert feed.loss is not None
    assert feed.loss.startswith("run 1 of this home committed checkpoint 2 at 2026-01-01T00:00Z")
    assert f"the ledger in {home.store.url} knows none after 1" in feed.loss
    home.commit("base")
    home.begin()
    assert [each.loss for each in home.followings] == [None]
