"""What is shown while a pipeline trains: one line an event, and stages beside each other."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.source_tree import ROOT
from trainflow.cli.live.lines import LineDisplay, run_line
from trainflow.cli.live.panel import (
    Panel,
    display,
    panel_of_chain,
    panel_of_stages,
    summary,
    summary_of_stages,
    task_text,
)
from trainflow.insight.ended_runs import RunLine, last_of
from trainflow.insight.progress import ProgressView, TaskLine

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def view(dag_id: str, **facts: Any) -> ProgressView:
    given: dict[str, Any] = {
        "finished": False,
        "current_number": 1,
        "tasks": [],
        "new_runs": [],
        "last_run": None,
        "runs": 0,
        "rows": 0,
        "metrics": {},
        "trained": None,
        "total": None,
        "watermark": None,
        "rows_per_second": None,
        "eta_seconds": None,
    }
    return ProgressView(dag_id=dag_id, **{**given, **facts})


def run(dag_id: str, **facts: Any) -> RunLine:
    given: dict[str, Any] = {"number": 1, "state": "success", "note": "caught up", "seconds": 1.0, "partitions": 0}
    given["busy_seconds"] = 1.0
    given |= {"rows": 0, "start": None, "end": None, "metrics": {}, "checkpoint": None, "problem": None}
    return RunLine(dag_id=dag_id, run_id="r", **{**given, **facts})


def task(task_id: str, state: str, note: str | None = None) -> TaskLine:
    return TaskLine(task_id, state, [(NOW, None)], None, note, None, None)


STAGES = [
    view("m.base", trained=3, total=4, tasks=[task("train", "running")], last_run=run("m.base")),
    view("m.fine", trained=2, total=4, last_run=run("m.fine", note="waits for stage base")),
    view("m.other", tasks=[task("samples", "deferred", "waits for 2024-01-05")]),
    view("m.last", total=4),
]


def test_run_line_task_that_failed_in_successful_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    ended = run("m", checkpoint={"number": 3}, failed_beside=("export",))
    assert run_line(ended, view("m")).endswith("· failed: export")
    summary(view("m", last_run=ended, failed_beside={"export": 2}), seconds=1.0, mirrored=None)
    assert (
        "export in 2 runs, though the runs ended well (trainflow tasks logs m latest TASK)" in capsys.readouterr().out
    )


def test_panel_each_wait_of_each_stage_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LineDisplay()
    for _ in range(2):
        lines.show(STAGES, NOW)
    assert capsys.readouterr().out == "m.other: waits for 2024-01-05\n"


def test_stages_have_bar_each_and_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Console(width=100).print(panel_of_stages(STAGES, NOW, 100))
    title, base, fine, other, last, _ = capsys.readouterr().out.splitlines()
    assert title.startswith("╭─ m ─")
    assert ("base" in base, "3/4" in base, "train" in base) == (True, True, True)
    assert ("2/4" in fine, "waits for stage base" in fine) == (True, True)
    assert "waits for 2024-01-05" in other
    assert ("0/4" in last, "not begun yet" in last) == (True, True)


def test_summary_has_line_for_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    summary_of_stages(STAGES, seconds=2.0, mirrored=None)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["m", "COMMITTED", "PARTITIONS", "ROWS", "WATERMARK", "PREQUENTIAL"]
    assert [line.split()[0] for line in lines[:4]] == ["base", "fine", "other", "last"]
    assert lines[4:] == [
        "base: caught up",
        "fine: waits for stage base",
        "other: nothing was due",
        "last: nothing was due",
        "0 checkpoints committed in 2.0s",
    ]


def test_dags_of_several_pipelines_are_told_by_their_whole_names(capsys: pytest.CaptureFixture[str]) -> None:
    summary_of_stages([view("one"), view("two.fine")], seconds=1.0, mirrored=None)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:3]] == ["one", "two.fine"]


def test_panel_line_tells_holes_and_changes_behind_chain() -> None:
    made: dict[str, Any] = {"start": NOW, "end": NOW, "partitions": 2, "rows": 80, "checkpoint": {"number": 3}}
    assert run_line(run("m", **made), view("m")).split(" · ")[2:] == ["2 partitions, 80 rows", "1.0s"]
    line = run_line(run("m", **made, holes=1, late="partition x was published again"), view("m"))
    assert line.split(" · ")[2:] == ["2 partitions, 1 hole, 80 rows", "1.0s", "partition x was published again"]
    assert run_line(run("m", late="not replayed"), view("m")) == "m #1: caught up; not replayed"


def test_panel_run_ending_after_successor_is_last_only_if_failed() -> None:
    late, caught_up = run("m", number=4), run("m", number=5)
    assert last_of(None, late) == last_of(late, late) == late
    assert last_of(late, caught_up) == last_of(caught_up, late) == caught_up
    failed, other = run("m", number=4, state="failed"), run("m.fine", number=1)
    assert (last_of(caught_up, failed), last_of(caught_up, other)) == (failed, other)


def test_panel_summary_without_counts_omits_partitions(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that fails before it has read the ledger has not trained 0 partitions."""
    summary(view("flights", trained=None, total=365), seconds=1.0, mirrored=None)
    assert "partitions" not in capsys.readouterr().out
    summary(view("flights", trained=0, total=365), seconds=1.0, mirrored=None)
    assert "0 of 365" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("views", [STAGES, STAGES[:1]], ids=["stages", "one chain"])
def test_panel_keeps_within_terminal(views: list[ProgressView], columns: int) -> None:
    from rich.console import Console

    long = "[/red] a note with [brackets] and\n" + "many words " * 30
    tasks = [task("train", "running", long), task("commit", "up_for_retry", None)]
    console = Console(width=columns, force_terminal=True, markup=False, file=io.StringIO(), color_system=None)
    panel = Panel(console)
    panel.show([msgspec.structs.replace(view, tasks=tasks, metrics={"auc[x]": 0.5}) for view in views], NOW)
    panel.close()
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    first = next(number for number, line in enumerate(lines) if "╰" in line)
    drawn = [line.removeprefix("\x1b[?25l") for line in lines[: first + 1]]
    assert {cell_len(line) for line in drawn} == {min(columns - 2, 100 if len(views) > 1 else 88)}
    shown = "".join(drawn)
    assert ("train " in shown, "3/4" in shown, ("base" in shown and "fine" in shown) == (len(views) > 1)) == (True,) * 3
    assert "[/red] a" in shown or columns <= 60


@pytest.mark.parametrize(
    ("tty", "term", "notebook", "drawn"),
    [
        (True, "xterm", False, True),
        (True, "xterm", True, False),
        (True, "dumb", False, False),
        (False, "xterm", False, False),
    ],
)
def test_panel_without_redrawing_prints_lines(
    monkeypatch: pytest.MonkeyPatch, tty: bool, term: str, notebook: bool, drawn: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty)
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    if notebook:  # what ipykernel has in its environment
        monkeypatch.setenv("JPY_PARENT_PID", "1")
    shown = display()
    shown.close()
    assert isinstance(shown, Panel) == drawn


def test_panel_several_runs_show_progress_each() -> None:
    runs = [
        run("m", number=number, partitions=3, holes=holes, checkpoint={"number": number})
        for number, holes in ((1, 0), (2, 1), (3, 0))
    ]
    now = view("m", new_runs=[*runs, run("m", number=4)], trained=10, total=12)
    assert [run_line(each, now).rpartition(" · ")[2] for each in runs] == ["3/12", "7/12", "10/12"]


def test_panel_joining_run_under_way_says_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    joined = view(
        "m", joined=True, trained=3, total=4, watermark=NOW, current_number=9, tasks=[task("train", "running")]
    )
    lines = LineDisplay()
    lines.show([joined], NOW)
    lines.show([msgspec.structs.replace(joined, trained=4)], NOW)
    assert capsys.readouterr().out == "m: 3 of 4 partitions trained · trained up to 2024-01-01 · run 9 is at train\n"


def test_panel_of_readme_is_what_is_drawn() -> None:
    begun, now = (NOW + timedelta(seconds=seconds) for seconds in (0, 0.1))
    notes = {
        "prepare": None,
        "checkpoint": "checkpoint 23, trained up to 2013-11-19T00:00Z",
        "samples": "14 partitions, 2013-11-19T00:00Z to 2013-12-03T00:00Z, 12,677 rows",
        "evaluate": None,
    }
    took = {"prepare": 0.006, "checkpoint": 0.022, "samples": 0.05, "evaluate": 0.073}
    ended = [
        TaskLine(name, "success", [(begun, begun + timedelta(seconds=took[name]))], None, note, None, None)
        for name, note in notes.items()
    ]
    train = TaskLine(
        "train", "running", [(begun, None)], {"done": 2048, "total": 12677, "unit": "rows"}, None, None, None
    )
    to_come = [TaskLine(name, None, [], None, None, None, None) for name in ("commit", "next")]
    shown = view(
        "flight_delay",
        current_number=24,
        tasks=[*ended, train, *to_come],
        trained=322,
        total=365,
        watermark=datetime(2013, 11, 19, tzinfo=UTC),
        rows=297955,
        rows_per_second=11284.0,
        metrics={"auc": 0.6579, "log_loss": 0.518, "brier": 0.1698, "base_rate": 0.2337},
        eta_seconds=1.0,
    )
    console = Console(width=100, file=io.StringIO(), record=True, highlight=False, markup=False)

    console.print(panel_of_chain(shown, now, 98))

    assert f"```\n{console.export_text().rstrip()}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_panel_time_of_task_leaves_pauses_between_attempts_out() -> None:
    night = timedelta(hours=9)
    first = (NOW - night - timedelta(seconds=30), NOW - night)
    resumed = TaskLine("train", "running", [first, (NOW - timedelta(seconds=12), None)], None, None, None, None)

    assert "42.0s" in str(task_text(resumed, NOW))
