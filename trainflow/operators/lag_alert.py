"""How far a run leaves its chain behind the samples, and a notice when it will never catch up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from trainflow.errors import SampleError
from trainflow.pluralize import agreeing, counted
from trainflow.samples.partitions import mean_seconds
from trainflow.samples.throughput import Lag, estimate_catch_up, lag_behind

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.messages.notice import Notice
    from trainflow.samples.spec import Samples
    from trainflow.samples.throughput import PastRun


def lag_after(
    watermark: datetime,
    samples: Samples,
    chain: ChainKey,
    history: Callable[[], Sequence[PastRun]],
    ti: TaskInstance,
) -> Lag | None:
    """What is ready beyond `watermark`; None when the samples cannot be read now. `history` is asked only when there
    is something to foretell."""
    from trainflow.samples.table.inventory import open_inventory
    from trainflow.samples.throughput import throughput_of

    now = ti.clock.now()
    try:
        lag = lag_behind(samples, watermark, open_inventory(samples, ti.project_root, now).is_ready, now)
    except SampleError as error:
        ti.log.warning("how far behind the chain is was not found out: %s", error)
        return None
    goes_on = samples.end is None or samples.end > now
    if lag.partitions and goes_on:
        pace = throughput_of(history()).seconds_a_partition
        if pace is not None and estimate_catch_up(samples, lag.partitions, pace, now).never:
            ti.notify(_notice(chain, lag, pace, samples, ti, now))
    return lag


def _notice(chain: ChainKey, lag: Lag, pace: float, samples: Samples, ti: TaskInstance, now: datetime) -> Notice:
    """Told once a day, for as long as it is so."""
    from trainflow.messages.notice import Event, Notice

    sentence = (
        f"{chain} never catches up at this rate: {counted(lag.partitions, 'partition')} "
        f"{agreeing(lag.partitions, 'is', 'are')} ready beyond its head, one takes "
        f"{pace / 3600:.1f} h and another one arrives every {mean_seconds(samples) / 3600:.1f} h"
    )
    ti.log.warning("%s", sentence)
    return Notice(
        event=Event.NEVER_CATCHES_UP,
        key=f"never_catches_up {chain} {now:%Y-%m-%d}",
        sentence=sentence,
        **chain.names,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        facts={"lag_partitions": lag.partitions, "lag_seconds": lag.seconds, "seconds_a_partition": pace},
    )
