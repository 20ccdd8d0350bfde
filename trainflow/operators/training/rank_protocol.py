"""What ranks and the attempt's process tell each other by files: which function is called, how each rank reads the
split, and why one has failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from trainflow.errors import FailException, SkipException, TaskError, describe
from trainflow.messages.workload import DagSource
from trainflow.operators.bash import failure_message
from trainflow.operators.training.ranks import is_from_outside
from trainflow.task_signals import TaskPartLost, TaskPreempted


class RankFunction(msgspec.Struct, frozen=True):
    """The DAG file whose task names the function that a rank calls. `version`: the one that the code there has to give;
    empty: whatever it gives."""

    source: DagSource
    version: str = ""


class RankProblem(msgspec.Struct, frozen=True):
    """Why a rank has failed. `for_good`: every further try would end like this one; `is_mistake`: what is written in
    the code is at fault; `at`: when, in seconds of the host's monotonic clock."""

    message: str
    traceback: str
    kind: str
    for_good: bool = False
    is_mistake: bool = False
    at: float = 0.0


class RankReading(msgspec.Struct, frozen=True):
    """How a rank reads the split (`ctx.batches`). All have to do it in the same way: it decides who reads which
    rows."""

    batch_size: int
    shuffle: bool
    epochs: int
    world_size: int


class _InRank(Exception):
    """The traceback of a rank, as the cause of what its attempt says."""


def note_reading(file: Path) -> Callable[[int, bool, int, int], None]:
    """What a rank calls each time it begins to read."""

    def note(batch_size: int, shuffle: bool, epochs: int, world_size: int) -> None:
        with file.open("ab") as lines:
            lines.write(msgspec.json.encode(RankReading(batch_size, shuffle, epochs, world_size)) + b"\n")

    return note


def check_readings(files: Sequence[Path]) -> None:
    """Raise FailException where ranks do not read the split in the same way. Those that have not begun yet are waited
    for."""
    readings = [_readings(file) for file in files]
    for number in range(min(map(len, readings))):
        first = readings[0][number]
        for rank, each in enumerate(readings):
            if each[number] != first:
                raise FailException(
                    f"rank {rank} reads the split with {_shown(each[number])}, and rank 0 with {_shown(first)}: rows "
                    "would be left out or trained on twice; give ctx.batches the same arguments on every rank"
                )


def first_to_fail(seen_first: int, problems: Sequence[str]) -> int:
    """The rank that failed first: the others soon fail because of it, and may be seen to end before it does.
    `problems`: the files where the ranks may have said why. One that says nothing, as it was ended from outside, is
    the one that was `seen_first`."""
    told = {rank: problem.at for rank, file in enumerate(problems) if (problem := _problem(Path(file))) is not None}
    return min(told, key=lambda rank: told[rank]) if seen_first in told else seen_first


def failure_of(
    rank: int,
    code: int,
    ranks: int,
    problem: str,
    tail: Sequence[str],
    *,
    retries_mistakes: bool,
    gone: str | None = None,
    failed_here: OSError | None = None,
    out_of_memory: str = "",
) -> BaseException:
    """What to raise for a rank that ended badly. `problem`: the file where it may have said why; `retries_mistakes`:
    another try may get over what looks like a mistake in the code; `gone`: why nothing is heard of it any more;
    `failed_here`: what has kept its files from being read or written on this host;
    `out_of_memory`: what is said of it where the kernel has killed it for that, which is its own fault."""
    who = f"rank {rank} of {ranks}"
    if failed_here is not None:
        failure = TaskError(f"the files of {who} cannot be dealt with on this host: {describe(failed_here)}")
        failure.__cause__ = failed_here
        return failure
    if gone is not None:
        return TaskPartLost(f"{who} is gone: {gone}; the other ranks were ended with it")
    if out_of_memory:
        advice = "train on smaller splits or batches, or give it more memory"
        return TaskError(f"{who} was killed by signal {-code}: {out_of_memory}: {advice}")
    if is_from_outside(code):
        return TaskPartLost(f"{who} was killed by signal {-code}; the other ranks were ended with it")
    said = _problem(Path(problem))
    if said is None:
        return TaskError(failure_message(who, code, tail))
    if said.kind == SkipException.__name__:
        return SkipException(said.message)
    if said.kind == TaskPreempted.__name__:
        return TaskPartLost(f"{who} {said.message}, and not by its attempt; the other ranks were ended with it")
    is_final = said.for_good or (said.is_mistake and not retries_mistakes)
    failure = (FailException if is_final else TaskError)(f"{said.message} ({who}, exit code {code})")
    failure.__cause__ = _InRank(said.traceback)
    return failure


def _readings(file: Path) -> list[RankReading]:
    with suppress(FileNotFoundError):
        lines = file.read_bytes().splitlines(keepends=True)
        return [msgspec.json.decode(line, type=RankReading) for line in lines if line.endswith(b"\n")]
    return []


def _shown(reading: RankReading) -> str:
    return ", ".join(f"{name}={value}" for name, value in msgspec.structs.asdict(reading).items())


def _problem(file: Path) -> RankProblem | None:
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(file.read_bytes(), type=RankProblem)
    return None
