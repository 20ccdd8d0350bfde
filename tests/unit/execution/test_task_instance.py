"""XComs as a task pulls them: from what came along with its claim, or by asking."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trainflow.clock import ManualClock
from trainflow.execution.stop_signal import StopSignal
from trainflow.execution.task_instance import RuntimeTaskInstance
from trainflow.messages.execution_api import GetXCom, HandedXCom, RunInfo, Started, XComValues
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.settings.home import Home
from trainflow.settings.model import Settings


class Answering:
    """The execution API, as far as XComs go: "asked" for everything."""

    def __init__(self) -> None:
        self.asked: list[GetXCom] = []

    def request(self, request: GetXCom) -> XComValues:
        self.asked.append(request)
        return XComValues({task_id: msgspec.Raw(b'"asked"') for task_id in request.task_ids or ["a"]})

    def tell(self, message: Any) -> None:
        raise AssertionError(f"nothing is said here: {message}")


@pytest.fixture
def api() -> Answering:
    return Answering()


def task_instance(api: Answering, folder: Path, **workload: Any) -> RuntimeTaskInstance:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    started = Started(
        RunInfo("d", "r", "manual", {}, clock.now()),
        try_number=1,
        max_tries=0,
        xcoms=[HandedXCom("a", "return_value", msgspec.Raw(b"1")), HandedXCom("b", "return_value", msgspec.Raw(b"2"))],
    )
    source = DagSource("pipelines/d.py")
    return RuntimeTaskInstance(
        ExecuteTask(AttemptKey("x"), 1, "d", "r", "t", -1, source, str(folder), str(folder), "log", **workload),
        started,
        api,  # type: ignore[arg-type]
        project_root=folder,
        home=Home(folder / ".trainflow"),
        settings=Settings(),
        clock=clock,
        stop=StopSignal(),
    )


@pytest.fixture
def ti(api: Answering, tmp_path: Path) -> RuntimeTaskInstance:
    return task_instance(api, tmp_path)


@pytest.mark.parametrize(
    ("pull", "expected"),
    [
        ({"task_ids": "a"}, 1),
        ({"task_ids": ["b", "a"]}, [2, 1]),
        ({"task_ids": ["a", "a"]}, [1, 1]),
        ({"task_ids": "a", "dag_id": "d", "run_id": "r"}, 1),
    ],
)
def test_xcom_pull_of_what_came_along_asks_nothing(
    ti: RuntimeTaskInstance, api: Answering, pull: dict[str, Any], expected: Any
) -> None:
    assert ti.xcom_pull(**pull) == expected
    assert api.asked == []


@pytest.mark.parametrize(
    "pull",
    [
        {"task_ids": "c"},
        {"task_ids": ["a", "c"]},
        {"task_ids": "a", "key": "split"},
        {"task_ids": "a", "dag_id": "other"},
        {"task_ids": "a", "run_id": "earlier"},
        {"task_ids": "a", "map_indexes": 0},
        {"task_ids": "a", "include_prior_dates": True},
        {},
    ],
)
def test_xcom_pull_of_anything_else_asks(ti: RuntimeTaskInstance, api: Answering, pull: dict[str, Any]) -> None:
    assert "asked" in ti.xcom_pull(**pull)
    assert len(api.asked) == 1


def test_xcom_pull_for_second_time_asks(ti: RuntimeTaskInstance, api: Answering) -> None:
    """The task may wait until another one has handed over something new."""
    assert [ti.xcom_pull("a"), ti.xcom_pull("a"), ti.xcom_pull("b")] == [1, "asked", 2]
    assert [request.task_ids for request in api.asked] == [["a"]]


def test_xcom_pull_of_what_commits_asks(api: Answering, tmp_path: Path) -> None:
    """Cleared since its claim, it is refused before it writes."""
    ti = task_instance(api, tmp_path, shielded=True)
    assert (ti.xcom_pull("a"), len(api.asked)) == ("asked", 1)
