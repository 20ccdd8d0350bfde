"""What a run tells people: gates refused or promoted, samples stop the chain, an alias moved, it never catches up.

Of the same event the same notice, whichever attempt finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trainflow.errors import SampleCheckFailed, SampleDamaged, SampleError, SampleGap
from trainflow.humanize import agreeing, counted
from trainflow.messages.notice import XCOM_STOPPED, Cause, Event, Notice
from trainflow.samples.partitions import label, mean_seconds
from trainflow.samples.throughput import Lag, estimate_catch_up, lag_behind

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import Checkpoint, Rewind, Skip, Stop
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.checkpoints.ledger.state import ChainState
    from trainflow.samples.spec import Samples
    from trainflow.samples.throughput import PastRun

#: what rewinds took from checkpoints of the chain, until a checkpoint is promoted again: for the mirror
XCOM_MOVED = "aliases_moved"


def push_moved_aliases(ledger: Ledger, state: ChainState, ti: TaskInstance) -> None:
    """Push XCom `aliases_moved`, if there is something to say. Every run says it: who told it first may have died."""
    if state.demoted:
        ti.xcom_push(XCOM_MOVED, moved_aliases(ledger, state))


def moved_aliases(ledger: Ledger, state: ChainState) -> list[dict[str, Any]]:
    """Which aliases rewinds took from which checkpoints, and who has them now: {alias, lost, now} as the mirror reads
    it."""
    found: list[dict[str, Any]] = []
    for alias, lost in sorted(state.demoted.items()):
        name = state.promoted.get(alias)
        found.append({"alias": alias, "lost": lost, "now": None if name is None else _named(ledger, name)})
    return found


def _named(ledger: Ledger, checkpoint_id: str) -> dict[str, Any]:
    checkpoint = ledger.checkpoint(checkpoint_id)
    return {
        "checkpoint_id": checkpoint.id,
        "number": checkpoint.number,
        "uri": ledger.store.uri(checkpoint.artifacts.path),
        "watermark": checkpoint.watermark.isoformat(),
    }


def promotion_notice(
    chain: ChainKey,
    checkpoint: Checkpoint,
    alias: str,
    uri: str,
    *,
    dag_id: str,
    run_id: str = "",
    entry: int | None = None,
) -> Notice:
    """The notice: the same for the same checkpoint and alias; and `entry`, where a person promoted it, since an alias
    may come back."""
    return Notice(
        event=Event.PROMOTED,
        key=f"{alias} {checkpoint.id}" + (f" {entry}" if entry is not None else ""),
        sentence=(
            f"{chain}: checkpoint {checkpoint.number}, trained up to {label(checkpoint.watermark)}, "
            f"is promoted to {alias!r}"
        ),
        **chain.names,
        dag_id=dag_id,
        run_id=run_id,
        facts={
            "alias": alias,
            "checkpoint_id": checkpoint.id,
            "number": checkpoint.number,
            "watermark": checkpoint.watermark.isoformat(),
            "uri": uri,
        },
    )


#: what the commit task pushes when gates had it do something else: {action, reasons, start, end, …}
XCOM_GATE = "gate"


def note_gate_stop(ti: TaskInstance, chain: ChainKey, stop: Stop) -> None:
    """Leave the notice of a stopped chain: of the same stop the same notice, whichever attempt finds it."""
    split = f"{label(stop.split.start)} to {label(stop.split.end)}"
    reasons = "; ".join(stop.reasons)
    notice = {
        "cause": Cause.GATE.value,
        "key": f"stop {stop.sequence}",
        "sentence": f"{_refused(stop, split)}: {reasons}; {_way_out(chain, stop)}",
        "facts": {
            "reasons": stop.reasons,
            "checkpoint_id": stop.id,
            "start": stop.split.start.isoformat(),
            "end": stop.split.end.isoformat(),
            "metrics": stop.metrics,
            "evaluation": stop.evaluation,
        },
    }
    ti.xcom_push(XCOM_STOPPED, notice)


def _refused(stop: Stop, split: str) -> str:
    if stop.misnamed:
        return f"what was trained on {split} is not committed yet"
    return f"a gate refused what was trained on {split}"


def _way_out(chain: ChainKey, stop: Stop) -> str:
    resume = f"trainflow resume {chain.arguments}"
    if stop.misnamed:
        return f"mend the name, then '{resume} --accept' commits it, and nothing is trained again"
    return f"'{resume}' decides"


def note_split_given_up(ti: TaskInstance, entry: Skip | Rewind) -> None:
    """Note what became of the split, and push it as XCom `gate`."""
    from trainflow.checkpoints.ledger.entries import Skip

    refused = entry.refused
    assert refused is not None
    reasons = "; ".join(refused.reasons)
    if isinstance(entry, Skip):
        start, end = entry.start, entry.end
        ti.set_note(f"skipped {label(start)} to {label(end)}: {reasons}")
        facts: dict[str, Any] = {"action": "skip"}
    else:
        start, end, target = refused.start, refused.end, entry.to_checkpoint_id
        ti.set_note(f"rewound to {f'checkpoint {target}' if target else 'before the first checkpoint'}: {reasons}")
        facts = {"action": "rewind", "to": target}
    ti.xcom_push(XCOM_GATE, {**facts, "reasons": refused.reasons, "start": start.isoformat(), "end": end.isoformat()})


def note_bad_samples(ti: TaskInstance, error: SampleGap | SampleCheckFailed | SampleDamaged) -> None:
    """Leave a notice, should the run fail of it: of the same partition the same notice."""
    cause = Cause.GAP if isinstance(error, SampleGap) else Cause.CHECK
    partition = error.partition.isoformat() if error.partition else None
    notice = {
        "cause": cause.value,
        "key": f"{cause.value} {partition}",
        "sentence": str(error),
        "facts": {"partition": partition},
    }
    ti.xcom_push(XCOM_STOPPED, notice)


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
            ti.notify(_never_catches_up(chain, lag, pace, samples, ti, now))
    return lag


def _never_catches_up(
    chain: ChainKey, lag: Lag, pace: float, samples: Samples, ti: TaskInstance, now: datetime
) -> Notice:
    """Told once a day, for as long as it is so."""
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
