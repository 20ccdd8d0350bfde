"""What children of a warm process say to it."""

from __future__ import annotations

import os

import pytest

from trainflow.execution.forked_children import AwaitedImports, ChildReport, ChildReports, ReportKind
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask, ProcessIdentity


def workload(task_id: str = "train") -> ExecuteTask:
    key, source = AttemptKey(f"attempt of {task_id}"), DagSource("pipelines/a.py")
    return ExecuteTask(key, 0, "run", "dag", task_id, -1, source, "/", "/", "/dev/null")


def test_reports_come_in_the_order_in_which_they_were_said() -> None:
    reports, one, other = ChildReports(), ProcessIdentity(17, 123456789.0), ProcessIdentity(18, 0.0)
    said = [
        ChildReport(ReportKind.WAITS, one),
        ChildReport(ReportKind.IMPORTED, other),
        ChildReport(ReportKind.UNUSED, one),
        ChildReport(ReportKind.STALE, other),
    ]
    for kind, process in said:
        reports.say(kind, process)
    assert reports.take() == said
    assert reports.take() == []


@pytest.mark.parametrize("size", [1, 7, 20, 22, 4000])
def test_reports_are_found_among_what_code_of_users_writes_there(size: int) -> None:
    reports, one, other = ChildReports(), ProcessIdentity(17, 123456789.0), ProcessIdentity(18, 0.0)
    garbage = (b"\xff\xfftrainflx\n" * size)[:size]
    for kind, process in ((ReportKind.WAITS, one), (ReportKind.IMPORTED, other)):
        os.write(reports._write_end, garbage)
        reports.say(kind, process)
    os.write(reports._write_end, garbage)
    assert reports.take() == [ChildReport(ReportKind.WAITS, one), ChildReport(ReportKind.IMPORTED, other)]
    reports.say(ReportKind.UNUSED, one)
    assert reports.take() == [ChildReport(ReportKind.UNUSED, one)]
    # what is none is not kept
    assert len(reports._left) < 8


def test_awaited_imports_are_a_task_once_its_child_has_said_so() -> None:
    imports, train = AwaitedImports(), workload()
    assert imports.begin(17, train) is None
    assert imports.imported(17) == train
    assert imports.knows(train)
    # what is known is neither waited for nor said again
    assert imports.begin(18, train) is None
    assert imports.imported(18) is None


def test_awaited_imports_said_before_it_is_known_what_the_child_runs_count_then() -> None:
    imports, train = AwaitedImports(), workload()
    assert imports.imported(17) is None
    # by then it may have ended
    imports.forget(17)
    assert imports.begin(17, train, lives=False) == train
    assert imports.begin(17, train) is None


def test_awaited_imports_of_child_with_the_pid_of_an_earlier_one_are_not_known_by_what_that_said() -> None:
    imports, train = AwaitedImports(), workload()
    # of a task whose imports nothing waits for: no word of it is asked for
    assert imports.imported(17) is None
    imports.forget(17)
    imports.forked(17)
    assert imports.begin(17, train) is None
    assert not imports.knows(train)


@pytest.mark.parametrize("ended", ["before it is known what it runs", "afterwards"])
def test_awaited_imports_of_child_that_ended_without_a_word_are_not_known(ended: str) -> None:
    imports, train = AwaitedImports(), workload()
    assert imports.begin(17, train, lives=ended == "afterwards") is None
    imports.forget(17)
    assert not imports.knows(train)
    assert imports.begin(18, train) is None
    assert imports.imported(18) == train
