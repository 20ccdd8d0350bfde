"""Wait for a partition of a sample table."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trainflow.authoring.trigger import BaseTrigger, TriggerEvent
from trainflow.clock import Clock, SystemClock, ensure_utc
from trainflow.errors import SampleBucketMissing, SampleUnreadable
from trainflow.identifiers import canonical_json, digest
from trainflow.operators.chain.storage_options import with_options, without_options
from trainflow.samples.spec import Samples
from trainflow.settings.load import load_settings
from trainflow.settings.model import Settings
from trainflow.settings.project import project_at

if TYPE_CHECKING:
    from trainflow.samples.table.probe import SharedListings

logger = logging.getLogger(__name__)

#: a backfill's task looks at least this often whether there still is something to wait for
LOOK_AGAIN = timedelta(minutes=10)
#: how long samples may be out of reach before the waiting task is told (and fails, or tries again)
OUTAGE = timedelta(minutes=5)
#: later partitions are looked at for the sake of the gap policy, which lists more than one folder: at each look where
#: that is quick; where it is not, so seldom that it takes this share of the time, over all who look; but each minute
LOOK_LATER_SHARE = 0.01
LOOK_LATER_EVERY = timedelta(minutes=1)
#: how old a listing may be that several triggers share
_LISTING_SECONDS = 0.5


class PartitionTrigger(BaseTrigger):
    """Fires when the wait for the partition that starts at `partition_start` is over: it is ready, the gap policy has
    run out, or the table has ended. The payload says why; the task decides anew, whatever it says.

    `give_up_after`: after so many seconds, counted from here, it fires in any case, so that the task looks whether
    there still is something to wait for. `check_again_after`: seconds after which time alone may end the wait, as far
    as the task knows. Neither is a moment: the clocks of two hosts may differ, and a wait that is over at once for one
    and begins anew for the other would go round without end. `unfinished`: a file of the partition could not be read
    when its listing was this; the wait is over once it is whole, or after `check_again_after`. `pause_first`: the task
    was woken up and found nothing: what looks here and what looks there do not agree, and it is looked again after
    `poke_interval`, not at once.
    Samples that cannot be reached for a moment do not end a wait that may last a day; five minutes of it do.

    Arguments are kept in the database and hold no secrets: options for the storage come from the settings and the
    environment of the project at `project_root`, in the process that looks.
    """

    def __init__(
        self,
        samples: Samples | dict[str, Any],
        partition_start: datetime | str,
        project_root: Path | str,
        poke_interval: float = 1.0,
        give_up_after: float | None = None,
        check_again_after: float | None = None,
        unfinished: str | None = None,
        pause_first: bool = False,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        self.samples = without_options(samples if isinstance(samples, Samples) else msgspec.convert(samples, Samples))
        self.partition_start = _moment(partition_start)
        self.project_root = Path(project_root)
        self.poke_interval = poke_interval
        self.unfinished = unfinished
        self.pause_first = pause_first
        self._clock = clock or SystemClock()
        self.give_up_after = give_up_after
        self.check_again_after = check_again_after
        #: how many different waits this process looks at
        self._lookers = 1
        # by the monotonic clock: the time of the day may be set
        self._look_later_at = self._first_look_later()
        self._gives_up_at = None if give_up_after is None else self._after(give_up_after, LOOK_AGAIN)
        self._may_be_finished_at: float | None = None
        if unfinished is not None and check_again_after is not None:
            self._may_be_finished_at = self._after(check_again_after, LOOK_AGAIN)
        self._unreadable_since: float | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.PartitionTrigger", {
            "samples": msgspec.json.decode(msgspec.json.encode(self.samples)),
            "partition_start": self.partition_start.isoformat(),
            "project_root": str(self.project_root),
            "poke_interval": self.poke_interval,
            "give_up_after": self.give_up_after,
            "check_again_after": self.check_again_after,
            "unfinished": self.unfinished,
            "pause_first": self.pause_first,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        import asyncio

        from trainflow.operators.triggers.poller import shared_poller

        poller = shared_poller()

        async def look() -> str | None:
            self._lookers = max(len(poller), 1)
            return await self.in_thread(self.look)

        if self.pause_first:
            await asyncio.sleep(self.poke_interval)
        yield TriggerEvent(await poller.wait(self.key, look, self.poke_interval))

    @property
    def key(self) -> str:
        """The same for triggers whose answers are the same."""
        _, kwargs = self.serialize()
        return digest(canonical_json({**kwargs, "poke_interval": None, "pause_first": None}))

    def look(self) -> str | None:
        """Why the wait is over, None while it is not. Blocks: lists the storage."""
        from trainflow.samples.table.probe import probe

        now, elapsed = self._clock.now(), self._clock.monotonic()
        if self._gives_up_at is not None and elapsed >= self._gives_up_at:
            return "time to look at everything again"
        if self._may_be_finished_at is not None and elapsed >= self._may_be_finished_at:
            return "time to look again whether the files can be read"
        look_later = elapsed >= self._look_later_at
        try:
            samples = with_options(self.samples, self._settings)
            found = probe(
                samples, self.partition_start, self.project_root, now,
                listings=_listings(), look_later=look_later, unfinished=self.unfinished,
            )  # fmt: skip
        except SampleBucketMissing as error:
            return str(error)
        except SampleUnreadable as error:
            return self._unreadable(error, elapsed)
        self._unreadable_since = None
        if look_later:
            began, elapsed = elapsed, self._clock.monotonic()
            self._look_later_at = elapsed + self._look_later_pause(elapsed - began)
        if found.check_again_at is not None:
            seconds = (found.check_again_at - self._clock.now()).total_seconds()
            self._look_later_at = min(self._look_later_at, self._after(seconds, LOOK_LATER_EVERY))
        return found.reason if found.ready else None

    def _after(self, seconds: float, longest: timedelta) -> float:
        """The moment in so many seconds by the monotonic clock, `longest` from now at most."""
        return self._clock.monotonic() + min(max(seconds, 0.0), longest.total_seconds())

    def _first_look_later(self) -> float:
        """The task that defers has just looked at everything, so not at once: its clock may be behind this one."""
        pause = self._look_later_pause(0.0)
        if self.check_again_after is not None:
            again = min(self.check_again_after, LOOK_LATER_EVERY.total_seconds())
            pause = min(pause, max(again, self.poke_interval))
        return self._clock.monotonic() + pause

    def _look_later_pause(self, took_seconds: float) -> float:
        """Seconds in which later partitions are not looked at, after a look at them that took so long."""
        paced = max(self.poke_interval, took_seconds / LOOK_LATER_SHARE * self._lookers)
        return min(paced, max(LOOK_LATER_EVERY.total_seconds(), self.poke_interval))

    @cached_property
    def _settings(self) -> Settings:
        return load_settings(project_at(self.project_root))

    def _unreadable(self, error: SampleUnreadable, elapsed: float) -> str | None:
        if self._unreadable_since is None:
            self._unreadable_since = elapsed
            logger.warning("a wait for samples goes on although they cannot be read: %s", error)
        return str(error) if elapsed - self._unreadable_since >= OUTAGE.total_seconds() else None


@cache
def _listings() -> SharedListings:
    """Shared by all triggers of this process."""
    from trainflow.samples.table.probe import SharedListings

    return SharedListings(max_age_seconds=_LISTING_SECONDS)


def _moment(value: datetime | str) -> datetime:
    return ensure_utc(datetime.fromisoformat(value) if isinstance(value, str) else value)
