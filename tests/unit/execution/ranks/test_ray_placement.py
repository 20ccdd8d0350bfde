"""Ranks in places of a Ray cluster: a rank whose node is gone is started again, the first one's end is that of all.
What is imported as Ray is a stand-in, and what its actors run is written here."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainflow.errors import EngineError
from trainflow.execution.ranks import ray_placement
from trainflow.execution.ranks.ray_placement import RayRanks
from trainflow.messages.workload import RayPlacement

STAND_IN = Path(__file__).parents[3] / "support" / "local_ray"


class Ranks:
    """What ranks do: by rank, the answers of their runs one after the other."""

    def __init__(self) -> None:
        self.answers: dict[int, list[Any]] = {}
        self.begun: list[int] = []
        self.told: list[int] = []

    def run(self, nodes: int = 3, stopping: Callable[[], bool] = lambda: False) -> int:
        placement = RayPlacement({"CPU": 1.0}, "STRICT_SPREAD")
        return RayRanks(nodes, placement, "{}", [], stopping).run()


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ranks]:
    made = Ranks()

    class Actor:
        """A rank of the test."""

        def run(self, rank: int, workload: str, arguments: list[str]) -> int:
            self.rank = rank
            made.begun.append(rank)
            answer = made.answers.get(rank, [0]).pop(0)
            if callable(answer):
                answer = answer()
            if isinstance(answer, BaseException):
                raise answer
            return int(answer)

        def stop(self) -> None:
            made.told.append(getattr(self, "rank", -1))

    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setattr(ray_placement, "RankActor", Actor)
    monkeypatch.setattr(ray_placement, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(ray_placement, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(ray_placement, "_LAST_SECONDS", 0.2)
    yield made
    for name in [name for name in sys.modules if name == "ray" or name.startswith("ray.")]:
        del sys.modules[name]


def when(is_so: Callable[[], object]) -> Callable[[], int]:
    """A run that ends with 0 when something is so."""

    def run() -> int:
        while not is_so():
            threading.Event().wait(0.01)
        return 0

    return run


def gone() -> BaseException:
    from ray.exceptions import RayError

    found: BaseException = RayError("the node of the actor is gone\nmore")
    return found


def test_exit_code_is_that_of_first_rank(ranks: Ranks) -> None:
    ranks.answers = {0: [7]}
    assert ranks.run() == 7
    assert sorted(ranks.begun) == [0, 1, 2]


def test_rank_whose_node_is_gone_is_started_again(ranks: Ranks) -> None:
    again = [gone, gone, 0]
    ranks.answers = {1: again, 0: [lambda: ([None for _ in iter(lambda: bool(again), False)] and 0) or 0]}
    assert ranks.run() == 0
    assert sorted(ranks.begun) == [0, 1, 1, 1, 2]


def test_first_rank_whose_node_is_gone_ends_all(ranks: Ranks) -> None:
    ranks.answers = {0: [gone]}
    assert ranks.run() == 1
    assert sorted(ranks.told) == [0, 1, 2]


def test_rank_that_cannot_run_is_named(ranks: Ranks) -> None:
    over = threading.Event()
    ranks.answers = {0: [when(over.is_set)], 2: [3]}
    with pytest.raises(EngineError, match="rank 2 of 3 has ended with exit code 3"):
        ranks.run()
    over.set()


def test_rank_that_cannot_begin_is_not_begun_again(ranks: Ranks) -> None:
    over = threading.Event()

    def refused() -> BaseException:
        from ray.exceptions import RayTaskError

        found: BaseException = RayTaskError("rank\nTraceback\nModuleNotFoundError: No module named 'trainflow'\n")
        return found

    ranks.answers = {0: [when(over.is_set)], 1: [refused, 0]}
    with pytest.raises(EngineError, match="rank 1 of 3 cannot run: ModuleNotFoundError: No module named 'trainflow'"):
        ranks.run()
    over.set()
    assert ranks.begun.count(1) == 1


def test_first_rank_alone_is_told_to_stop(ranks: Ranks) -> None:
    ranks.answers = {0: [when(lambda: ranks.told)]}
    assert ranks.run(stopping=lambda: len(ranks.begun) == 3) == 0
    assert ranks.told[0] == 0


def test_job_that_is_stopped_before_there_are_places_ends(ranks: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import Future

    import ray.util

    monkeypatch.setattr(ray.util.PlacementGroup, "ready", lambda self: Future())
    with pytest.raises(EngineError, match="its ranks had no places when it was told to stop"):
        ranks.run(stopping=lambda: True)
    assert ranks.begun == []


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match="which is not installed here"):
        Ranks().run()
