"""How a training function saves how far it is inside its split, and how the next attempt goes on from there.

The function names a point at which it could go on (`ctx.save(position, write)`, at every batch); when to write is
decided here: now and then, and when the attempt is told to stop. What is written is an intermediate save in the chain's
store (see `trainflow.checkpoints.saves.intermediate_saves`): the next attempt finds it wherever it runs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainflow.errors import InputError, StoreFailure, TaskError
from trainflow.identifiers import canonical_json
from trainflow.samples.files.file_binding import check_unchanged
from trainflow.task_signals import TaskPreempted

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.saves.intermediate_saves import IntermediateSaves
    from trainflow.clock import Clock
    from trainflow.operators.training.background_saves import BackgroundSaves
    from trainflow.samples.splits.split import Split

#: writes what it takes to go on into an empty folder
Write = Callable[[Path], object]

#: seconds between two saves where the trainer does not say; and however often it asks for one, saving takes no more
#: than this share of the time
SAVE_SECONDS = 60.0
_LARGEST_SHARE = 0.1


class FilesFolder:
    """What stands for the folder `path` of its files: `checkpoint / "model.bin"` is a file of it."""

    path: Path

    def __truediv__(self, name: str | os.PathLike[str]) -> Path:
        return self.path / name

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Saved(FilesFolder):
    """What an earlier attempt saved: `position` to read on from, `path` with the files, and its `state` as it was."""

    position: dict[str, Any]
    path: Path
    state: dict[str, Any] = field(default_factory=dict)


class Saves(Protocol):
    """Where saves go."""

    def newest(self) -> Saved | None:
        """The newest one of earlier attempts."""
        ...

    def put(self, position: dict[str, Any], state: dict[str, Any], write: Write) -> None:
        """Keep one: all of it or nothing. Raises StoreFailure, and what `write` raises."""
        ...

    def report(self) -> None:
        """Say of which saves the next attempt can go on, wherever it runs, where that took its time."""
        ...


class StopRequest(Protocol):
    """How the process is told to stop."""

    def hold(self) -> None:
        """Have `requested` say so from now on, and interrupt nothing, until the grace is over."""
        ...

    @property
    def requested(self) -> bool:
        """Whether the process was told to stop."""
        ...


class SavePoints:
    """`ctx.save`, `ctx.saved` and `ctx.stopping` of one attempt."""

    def __init__(self, saves: Saves, stop: StopRequest, clock: Clock, log: logging.Logger) -> None:
        self._saves = saves
        self._stop = stop
        self._clock = clock
        self._log = log
        self._owner = os.getpid()
        self._held = False
        self._looked: list[Saved | None] = []
        #: the newest save there is, as canonical JSON
        self._last: bytes | None = None
        self._saved_at = clock.monotonic()
        self._took = 0.0

    @property
    def saved(self) -> Saved | None:
        """What earlier attempts saved last. Looked up once."""
        if not self._looked:
            self._looked.append(self._saves.newest())
            found = self._looked[0]
            if found is not None:
                self._last = _encoded(found.position, found.state)
                self._log.info("goes on from row %s of the split: an earlier attempt saved it", rows_of(found.position))
        return self._looked[0]

    @property
    def stopping(self) -> bool:
        """Whether the attempt was told to stop."""
        self._hold()
        return self._stop.requested

    def save(self, position: Mapping[str, Any], write: Write, state: Mapping[str, Any] | None, every: float) -> bool:
        """See `TrainContext.save`."""
        if os.getpid() != self._owner:
            raise TaskError("ctx.save in a forked copy of the task's process: only the one that runs the task saves")
        rows = rows_of(position)
        self._saves.report()
        if not self._held:
            _encoded(position, state or {})  # what is wrong is said at once, not when it is first written
        if not self.stopping and not self._is_due(every):
            return False
        encoded = _encoded(position, state or {})
        if encoded != self._last and rows > 0:
            self._put(dict(position), dict(state or {}), write, encoded)
        is_saved = encoded == self._last
        if self._stop.requested:
            kept = "saved" if is_saved else "not saved"
            raise TaskPreempted(f"was told to stop at row {rows} of the split ({kept})")
        return is_saved

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            self._stop.hold()

    def _is_due(self, every: float) -> bool:
        if every <= 0:
            return True
        return self._clock.monotonic() - self._saved_at >= max(every, self._took / _LARGEST_SHARE)

    def _put(self, position: dict[str, Any], state: dict[str, Any], write: Write, encoded: bytes) -> None:
        began = self._clock.monotonic()
        try:
            self._saves.put(position, state, write)
            self._last = encoded
        except StoreFailure as error:
            # what is trained is not lost by this; the next save may succeed
            self._log.warning("could not save how far it is, training goes on: %s", error)
        self._saved_at = self._clock.monotonic()
        self._took = self._saved_at - began


class StoredSaves(Saves):
    """Saves in the chain's store, written by the process that trains. Each says which content its rows are of: that of
    `split`. With each of them the `output` folder is looked at: what can never be committed is better found now than
    when all is trained. `background`: they are uploaded by, where the store is elsewhere."""

    def __init__(
        self,
        saves: IntermediateSaves,
        ti: TaskInstance,
        split: Split,
        output: Path | None = None,
        background: BackgroundSaves | None = None,
    ) -> None:
        self._saves = saves
        self._ti = ti
        self._split = split
        self._output = output
        self._background = background
        self._begun_at = 0

    def newest(self) -> Saved | None:
        """The newest one, whose rows, and those that are left, are still what the split names. Raises SampleChanged
        where they are not."""
        found = (self._background or self._saves).newest(self._split.digest)
        if found is None:
            return None
        check_unchanged(self._split)
        save, path = found
        self._begun_at = rows_of(save.position)
        return Saved(save.position, path, save.state)

    def put(self, position: dict[str, Any], state: dict[str, Any], write: Write) -> None:
        from trainflow.checkpoints.commit.output_checks import check_fit

        if self._output is not None:
            check_fit(self._output)
        saves, now = self._background or self._saves, self._ti.clock.now()
        try:
            write(saves.begin())
            saves.complete(position, state, now, split=self._split.digest)
        except BaseException:
            saves.abandon()
            raise
        if self._background is None:
            self._report(rows_of(position))

    def report(self) -> None:
        if self._background is not None:
            for rows in self._background.arrived():
                self._report(rows)

    def finish(self, *, needed: bool) -> None:
        """Wait for what is under way, as `BackgroundSaves.finish` does, and report it."""
        if self._background is not None:
            self._background.finish(needed=needed)
            self.report()

    def _report(self, rows: int) -> None:
        if rows > self._begun_at:
            self._ti.report_saved(rows)


class TaskStopRequest(StopRequest):
    """An attempt's own way of being told to stop."""

    def __init__(self, ti: TaskInstance) -> None:
        self._ti = ti

    def hold(self) -> None:
        self._ti.hold_stop()

    @property
    def requested(self) -> bool:
        return self._ti.terminated


class OtherRankSaves:
    """A rank that is not the first: what was saved it sees, what is to be saved the first rank sees to."""

    stopping = False

    def __init__(self, saved: Saved | None) -> None:
        self.saved = saved

    def save(self, position: Mapping[str, Any], write: Write, state: Mapping[str, Any] | None, every: float) -> bool:
        """Check what is given, and do nothing: the first rank decides when to save, and waits for no other one."""
        rows_of(position)
        _encoded(position, state or {})
        return False


class NoSaves:
    """Outside of a pipeline, in a trainer's own tests: nothing was saved, nothing is kept, no stop is told."""

    saved: Saved | None = None
    stopping = False

    def save(self, position: Mapping[str, Any], write: Write, state: Mapping[str, Any] | None, every: float) -> bool:
        """Check what is given, and do nothing."""
        rows_of(position)
        _encoded(position, state or {})
        return False


def rows_of(position: Mapping[str, Any]) -> int:
    """How many rows a position is behind, in all epochs together. Raises InputError for anything else."""
    row = position.get("row") if isinstance(position, Mapping) else None
    if not isinstance(row, int) or isinstance(row, bool) or row < 0:
        raise InputError(
            f"ctx.save({position!r}, …): give it the 'position' of ctx.batches(), or of a reader of your own a dict "
            "whose 'row' counts the rows of the split that were trained on"
        )
    return row


def _encoded(position: Mapping[str, Any], state: Mapping[str, Any]) -> bytes:
    try:
        return canonical_json([dict(position), dict(state)])
    except (TypeError, ValueError) as error:
        raise TaskError(f"ctx.save: position and state have no form in JSON: {error}") from None
