"""Saves of an attempt whose checkpoint store is elsewhere: they are on this machine at once, and are uploaded while
training goes on.

    ctx.save ──▶ written into a folder of the home ──▶ digested, its manifest written: the next attempt in this home
                 (the trainer waits for this alone)     finds it
                                                   ──▶ uploaded, its manifest written there: any attempt finds it, and
                                                        its rows are reported as saved

One thread does what is behind the first arrow, a save at a time. Of those that come meanwhile the newest is taken next
and the others are of no use any more. How far a save has come says what a kill costs: before the first manifest the
save before it is gone on from, before the second one another machine begins at the save before it, while this one goes
on from here and uploads what is missing, a file at a time.

What is reported as saved is in the store: the budget of retries must not count on a machine that may be gone. It is
reported by the thread that trains, which alone speaks to the engine.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainflow.checkpoints.commit.artifacts import Written, as_left
from trainflow.storage.local import LocalStore

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.entries import Artifacts
    from trainflow.checkpoints.saves.intermediate_saves import IntermediateSave, IntermediateSaves

#: how many are kept on this machine, besides one that was gone on from: they may be large, and are in the store
KEPT_HERE = 1


class _Written(NamedTuple):
    """A save whose files are on this machine; `number`: which of this attempt's, `left`: how the trainer left it."""

    position: Mapping[str, Any]
    state: Mapping[str, Any]
    at: datetime
    split: str
    number: int
    left: Written


class _OnThisMachine(NamedTuple):
    """A save that is whole on this machine, and how its `folder` is left; `begun`: its upload may have begun before."""

    save: IntermediateSave
    folder: Path
    left: Written
    begun: bool


class BackgroundSaves:
    """The saves `here`, on this machine, and `there`, in the store. `earlier` are the files of the checkpoints that are
    trained on from: they are not uploaded again."""

    def __init__(
        self,
        here: IntermediateSaves,
        there: IntermediateSaves,
        earlier: Callable[[], Sequence[Artifacts]],
        log: logging.Logger,
    ) -> None:
        self._here = here
        self._there = there
        self._earlier = cache(earlier)
        self._log = log
        self._changed = threading.Condition()
        self._next: _Written | _OnThisMachine | None = None
        self._thread: threading.Thread | None = None
        self._ends = False
        self._is_needed = True
        self._arrived: deque[int] = deque()

    def newest(self, split: str) -> tuple[IntermediateSave, Path] | None:
        """The furthest save, on this machine or in the store. What the store lacks of it is uploaded from now on.
        Raises StoreFailure."""
        found = self._here.newest(split)
        further = self._there.newest(split, after=-1 if found is None else int(found[0].position["row"]))
        if found is None or further is not None:
            return further
        # the trainer reads it for as long as it likes
        self._here.held.add(found[0].name)
        self._take(_OnThisMachine(*found, as_left(found[1]), begun=True))
        return found

    def begin(self) -> Path:
        """An empty folder to write the next save into. Raises StoreFailure."""
        return self._here.begin()

    def abandon(self) -> None:
        """Take away what `begin` has begun. Never raises."""
        self._here.abandon()

    def complete(self, position: Mapping[str, Any], state: Mapping[str, Any], now: datetime, split: str) -> None:
        """What was written into the folder that `begin` gave is to become a save, and to be uploaded. Raises
        ArtifactsRefused for what can never be one; StoreFailure."""
        left = as_left(self._here.folder_of(self._here.number))
        self._take(_Written(dict(position), dict(state), now, split, self._here.number, left))

    def arrived(self) -> list[int]:
        """The rows of saves that came to be in the store since this was asked last."""
        return [self._arrived.popleft() for _ in range(len(self._arrived))]

    def finish(self, *, needed: bool) -> None:
        """Wait for the thread: until the newest save is in the store, or where none is `needed` any more, because
        training has ended, for the file that is on its way. Raises nothing of what went wrong."""
        with self._changed:
            self._ends, self._is_needed = True, self._is_needed and needed
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _take(self, save: _Written | _OnThisMachine) -> None:
        with self._changed:
            if isinstance(self._next, _Written):
                shutil.rmtree(self._here.folder_of(self._next.number).parent, ignore_errors=True)
            self._next = save
            if self._thread is None:
                # its end is waited for (`finish`); an attempt that is torn down without that is not held up
                self._thread = threading.Thread(target=self._work, name="upload of saves", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._next is None and not self._ends:
                    self._changed.wait()
                save, self._next = self._next, None
            if save is None or not self._is_needed:
                return
            self._try(save)

    def _try(self, save: _Written | _OnThisMachine) -> None:
        try:
            self._keep(save)
        except Exception as error:
            # what is trained is not lost by this; the next save may succeed
            self._log.warning("could not save how far it is in the store, training goes on: %s", error)

    def _keep(self, save: _Written | _OnThisMachine) -> None:
        if isinstance(save, _Written):
            save = self._completed(save)
        made, folder, left, begun = save
        if self._there.publish(made, folder, left, self._earlier(), begun=begun, going_on=lambda: self._is_needed):
            self._arrived.append(int(made.position["row"]))

    def _completed(self, save: _Written) -> _OnThisMachine:
        folder = self._here.folder_of(save.number)
        try:
            made = self._here.complete(
                save.position, save.state, save.at, split=save.split, number=save.number, left=save.left
            )
        except BaseException:
            shutil.rmtree(folder.parent, ignore_errors=True)
            raise
        return _OnThisMachine(made, folder, save.left, begun=False)


def background_saves(
    there: IntermediateSaves, here: Path, earlier: Callable[[], Sequence[Artifacts]], log: logging.Logger
) -> BackgroundSaves:
    """The saves `there`, with those on this machine in a folder `here`."""
    return BackgroundSaves(there.in_store(LocalStore(here), kept=KEPT_HERE), there, earlier, log)
