"""TrainOperator with `nodes`: what the programs of one training are told, and how they end together."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trainflow.errors import FailException, InputError, SkipException, TaskError
from trainflow.operators import TrainOperator
from trainflow.operators.training.rank_protocol import (
    RankProblem,
    check_readings,
    failure_of,
    first_to_fail,
    note_reading,
)
from trainflow.operators.training.ranks import rank_environment
from trainflow.storage.atomic_files import replace_whole
from trainflow.task_signals import TaskPartLost, TaskPreempted, TaskTimeout

#: waits until all ranks are there, and lets each say that it is by a file named after its number
TOGETHER = (
    'touch "$TRAINFLOW_OUTPUT/$RANK"; while [ $(ls "$TRAINFLOW_OUTPUT" | wc -l) -lt $WORLD_SIZE ]; do sleep 0.01; done;'
)
WAITS = "sleep 100 & echo $! > pid-$RANK; wait"


def ranks(script: str, nodes: int = 3) -> dict[str, Any]:
    return {"command": ["bash", "-c", script], "nodes": nodes}


def pids(lab: Any) -> list[int]:
    return [int(path.read_text()) for path in lab.root.glob("pid-*") if path.read_text()]


def wait_for(is_so: Callable[[], bool]) -> None:
    assert any(is_so() or threading.Event().wait(0.01) for _ in range(3_000))


def test_ranks_are_told_who_they_are_and_where_first_one_listens(lab: Any, training: Any) -> None:
    script = (
        'echo "$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT" > "$TRAINFLOW_OUTPUT/$RANK"; '
        'echo "{\\"rank\\": $RANK}" > "$TRAINFLOW_METRICS"; echo "{\\"done\\": $RANK}" >> "$TRAINFLOW_PROGRESS"'
    )
    trained = lab.run(training(**ranks(script)), "train")
    folder = lab.root / "checkpoints" / trained["artifacts"]["path"]
    told = [(folder / str(rank)).read_text().split() for rank in range(3)]
    port = told[0][3]
    assert told == [[f"{rank}/3", f"{rank}/3", "127.0.0.1", port] for rank in range(3)]
    # those of the first one count
    assert trained["metrics"] == {"rank": 0.0}
    assert lab.ti.progress == [(0.0, None, "rows", None)]


def test_rank_environment_shares_processors_unless_something_is_said() -> None:
    shared = int(rank_environment(0, 2, 1, {})["OMP_NUM_THREADS"])
    assert shared == max((os.cpu_count() or 1) // 2, 1)
    assert rank_environment(0, 2, 1, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


def test_rank_that_fails_ends_others_and_is_named(
    lab: Any, training: Any, until_gone: Callable[[int], bool], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    script = f"{TOGETHER} if [ $RANK = 1 ]; then echo no more; exit 3; fi; {WAITS}"
    with pytest.raises(TaskError, match=r"rank 1 of 3 ended with exit code 3; the end of its output:\n  no more"):
        lab.run(training(**ranks(script)), "train")
    assert all(until_gone(pid) for pid in pids(lab))
    assert "rank 1: no more" in caplog.text


def test_rank_that_is_killed_is_lost_though_first_one_fails_of_it(
    lab: Any, training: Any, until_gone: Callable[[int], bool]
) -> None:
    script = (
        f"{TOGETHER} if [ $RANK = 2 ]; then touch gone; kill -9 $$; fi; until [ -e gone ]; do sleep 0.01; done; {WAITS}"
    )
    with pytest.raises(TaskPartLost, match="rank 2 of 3 was killed by signal 9"):
        lab.run(training(**ranks(script)), "train")
    assert all(until_gone(pid) for pid in pids(lab))


def test_all_ranks_have_to_end_well(lab: Any, training: Any) -> None:
    script = f"{TOGETHER} if [ $RANK = 1 ]; then sleep 0.3; exit 4; fi"
    with pytest.raises(TaskError, match="rank 1 of 2 ended with exit code 4"):
        lab.run(training(**ranks(script, 2)), "train")


SAVES = (
    'if [ $RANK = 0 ]; then mkdir "$TRAINFLOW_SAVES/.1"; '
    'echo "{\\"position\\": {\\"row\\": 4}}" > "$TRAINFLOW_SAVES/.1/save.json"; '
    'mv "$TRAINFLOW_SAVES/.1" "$TRAINFLOW_SAVES/1"; exit 0; else touch told-$RANK; fi'
)


def test_first_rank_alone_is_told_to_stop_saves_and_others_end_with_it(
    lab: Any, training: Any, until_gone: Callable[[int], bool]
) -> None:
    build = training(**ranks(f"trap '{SAVES}' TERM; {TOGETHER} touch here-$RANK; {WAITS}"))
    ti = lab.attempt(build().get_task("train"))

    def stop() -> None:
        wait_for(lambda: len(list(lab.root.glob("here-*"))) == len(pids(lab)) == 3 and ti.on_stop is not None)
        ti.terminated = True
        ti.on_stop()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(TaskPreempted):
        lab.run(build, "train", ti=ti)
    thread.join()
    assert ti.saved_rows == [4]
    assert all(until_gone(pid) for pid in pids(lab))


def test_interrupted_attempt_ends_all_ranks(lab: Any, training: Any, until_gone: Callable[[int], bool]) -> None:
    build = training(**ranks(f"{TOGETHER} {WAITS}"))
    ti = lab.attempt(build().get_task("train"))

    def interrupt(*_: object) -> None:
        raise TaskTimeout("execution_timeout")

    def stop() -> None:
        wait_for(lambda: len(pids(lab)) == 3)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=stop)
    try:
        thread.start()
        with pytest.raises(TaskTimeout):
            lab.run(build, "train", ti=ti)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert all(until_gone(pid) for pid in pids(lab))


def test_ranks_that_cannot_be_started_say_so(lab: Any, training: Any) -> None:
    with pytest.raises(TaskError, match="'no-such-program' cannot be started"):
        lab.run(training(command=["no-such-program"], nodes=2), "train")


@pytest.mark.parametrize("nodes", [0, -1, 1025, True, 1.5, "2", None])
def test_nodes_that_mean_nothing_are_refused(nodes: Any) -> None:
    with pytest.raises(InputError, match=r"nodes: .*(from 1 to 1024|not a whole number)"):
        TrainOperator(checkpoint={}, split={}, command=["true"], nodes=nodes)


def test_check_readings_different_arguments_are_refused_and_late_ones_waited_for(tmp_path: Path) -> None:
    files = [tmp_path / str(rank) for rank in range(3)]
    for file in files[:2]:
        note_reading(file)(64, True, 1, 3)
    check_readings(files)
    note_reading(files[2])(32, True, 1, 3)
    with pytest.raises(FailException, match=r"rank 2 reads the split with batch_size=32, .* rank 0 with batch_size=64"):
        check_readings(files)


@pytest.mark.parametrize(
    ("code", "said", "kind", "message"),
    [
        (1, None, TaskError, "rank 1 of 2 ended with exit code 1 and no output"),
        (-11, None, TaskError, "rank 1 of 2 was killed by signal 11 and no output"),
        (-15, None, TaskPartLost, "rank 1 of 2 was killed by signal 15; the other ranks were ended with it"),
        (1, RankProblem("ValueError: x", "", "ValueError"), TaskError, "ValueError: x (rank 1 of 2, exit code 1)"),
        (1, RankProblem("no", "", "", for_good=True), FailException, "no (rank 1 of 2, exit code 1)"),
        (1, RankProblem("no", "", "", is_mistake=True), FailException, "no (rank 1 of 2, exit code 1)"),
        (1, RankProblem("not today", "", "SkipException"), SkipException, "not today"),
        (
            1,
            RankProblem("was told to stop at row 8 of the split (saved)", "", "TaskPreempted"),
            TaskPartLost,
            "rank 1 of 2 was told to stop at row 8 of the split (saved), and not by its attempt; the other ranks were "
            "ended with it",
        ),
    ],
)
def test_failure_of_rank_says_which_and_how(
    tmp_path: Path, code: int, said: RankProblem | None, kind: type[BaseException], message: str
) -> None:
    import msgspec

    file = tmp_path / "problem.json"
    if said is not None:
        replace_whole(file, msgspec.json.encode(said))
    failure = failure_of(1, code, 2, str(file), [], retries_mistakes=False)
    assert (type(failure), str(failure)) == (kind, message)


def test_rank_that_is_killed_for_want_of_memory_has_failed(tmp_path: Path) -> None:
    failure = failure_of(1, -9, 2, str(tmp_path / "no"), [], retries_mistakes=False, out_of_memory="memory ran out")
    assert type(failure) is TaskError
    assert str(failure).startswith("rank 1 of 2 was killed by signal 9: memory ran out: train on smaller splits")


def test_first_to_fail_is_the_earliest_of_those_that_say_when(tmp_path: Path) -> None:
    files = [str(tmp_path / str(rank)) for rank in range(4)]
    for rank, at in ((0, 7.0), (2, 6.5)):
        Path(files[rank]).write_bytes(msgspec.json.encode(RankProblem("x", "", "EOFError", at=at)))
    assert first_to_fail(0, files) == 2
    # it was killed, or ended by itself without a word
    assert first_to_fail(1, files) == 1
