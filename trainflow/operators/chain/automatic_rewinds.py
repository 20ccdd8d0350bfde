"""Rewinds that a run makes before it begins: samples were published again, or the upstream of its stage was rewound.

Holes whose samples have arrived are told, and left to a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainflow.errors import ChainMoved, CheckpointError, InputError, SampleError
from trainflow.humanize import agreeing, counted
from trainflow.operators.chain.chain_operator import author_of
from trainflow.operators.chain.storage_options import with_options
from trainflow.samples.partitions import label

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import UpstreamSeen
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.checkpoints.ledger.state import ChainState
    from trainflow.checkpoints.stages.init_from import InitFrom
    from trainflow.checkpoints.upkeep.changed_samples import Replay, ReplayRefused, Republication
    from trainflow.messages.notice import Notice
    from trainflow.samples.spec import Samples

#: so many of the newest entries are looked through for earlier replays
_PAST = 2000


def check_late_data(ledger: Ledger, samples: Samples, ti: TaskInstance) -> str:
    """Compare what the line was trained on lately, and its last holes, with what is there now, and do what policy says.
    Returns clauses for the note; empty: nothing changed.

    A replay is one rewind entry: an attempt after a kill finds the head where it has to be, and nothing to do.
    Samples that cannot be read now are compared the next time. Raises LedgerCorrupt, StoreFailure.
    """
    reachable = with_options(samples, ti.settings)
    try:
        clauses = (_compared(ledger, reachable, ti), _arrived(ledger, reachable, ti))
    except SampleError as error:
        ti.log.warning("what was trained on is not compared with what is there now: %s", error)
        return ""
    return "; ".join(clause for clause in clauses if clause)


def _arrived(ledger: Ledger, samples: Samples, ti: TaskInstance) -> str:
    from trainflow.checkpoints.upkeep.changed_samples import newest_arrived

    count = newest_arrived(ledger.state(), samples, ti.project_root, ti.clock.now())
    if not count:
        return ""
    have = f"{counted(count, 'partition')} of its holes {agreeing(count, 'has', 'have')}"
    return f"{have} arrived, 'trainflow repair {ledger.chain.arguments}' trains what arrived"


def _compared(ledger: Ledger, samples: Samples, ti: TaskInstance) -> str:
    from trainflow.checkpoints.ledger.ancestors import KeptLine
    from trainflow.checkpoints.upkeep.changed_samples import republished

    state = ledger.state()
    found = republished(KeptLine(ledger, state), samples, ti.project_root, ti.clock.now())
    if not found:
        return ""
    said = sentence_about(found)
    if samples.republished.policy == "replay":
        said += f"; {_replayed(ledger, state, found, samples, ti)}"
    ti.log.warning("%s", said)
    ti.notify(_notice(ledger.chain, found, said, ti))
    return said


def sentence_about(found: Sequence[Republication]) -> str:
    """What was found, for people."""
    first = found[0]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    verb = "were" if more else "was"
    trained = f"checkpoint {first.number} was trained on it" if not more else "they were trained on"
    return f"partition {label(first.start)}{more} {verb} published again after {trained}"


def _notice(chain: ChainKey, found: Sequence[Republication], sentence: str, ti: TaskInstance) -> Notice:
    from trainflow.identifiers import canonical_json, digest
    from trainflow.messages.notice import Event, Notice

    partitions = [
        {"start": label(each.start), "trained": each.trained, "found": each.found, "checkpoint": each.number}
        for each in found
    ]
    return Notice(
        event=Event.REPUBLISHED,
        key=f"republished {chain} {digest(canonical_json(partitions))}",
        sentence=sentence,
        **chain.names,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        facts={"partitions": partitions},
    )


def _replayed(
    ledger: Ledger, state: ChainState, found: Sequence[Republication], samples: Samples, ti: TaskInstance
) -> str:
    """Rewind to before what was published again, and say so, or why not. What later stages were trained from is not
    touched here: they find out, and go back (`trainflow.checkpoints.stages.upstream_rewinds`), unless one of them
    could not."""
    from trainflow.checkpoints.ledger_changes.rewind import rewind
    from trainflow.checkpoints.upkeep.changed_samples import Replay, replayed_partitions

    decision = _decide(ledger, state, found, samples, ti)
    if not isinstance(decision, Replay):
        return f"not replayed: {decision.reason}"
    assert state.head is not None
    try:
        others = _going_too(ledger, decision)
        rewind(
            ledger,
            decision.to,
            expected_head=state.head.id,
            by=author_of(ti),
            now=ti.clock.now(),
            reason=sentence_about(decision.partitions),
            cause="replay",
            replayed=replayed_partitions(decision.partitions),
        )
    except ChainMoved:
        return "not replayed: the chain moved meanwhile"
    except (CheckpointError, InputError) as error:
        return f"not replayed: {error}"
    with_it = (
        f", and {', '.join(map(str, others))} {agreeing(len(others), 'goes', 'go')} back with it" if others else ""
    )
    return f"rewound to before it{with_it}; training goes forward again"


def _going_too(ledger: Ledger, decision: Replay) -> list[ChainKey]:
    """The chains that go back because of it. Raises InputError where one of them cannot."""
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.checkpoints.ledger_changes.rewind import cascading_rewinds

    plan = [each for each in cascading_rewinds(ledger, decision.to) if each.chain != ledger.chain]
    for each in plan:
        if each.pruned_up_to is not None:
            raise InputError(
                f"{each.chain} would go back with it, and its checkpoint that ends at {label(each.pruned_up_to)} was "
                f"pruned: rewind both by hand, 'trainflow checkpoints rewind {ledger.chain.arguments} --cascade'"
            )
    heads = {each.chain: Ledger(ledger.store, each.chain).state().head for each in plan}
    return [key for key, head in heads.items() if head is not None and head.upstream is not None]


def _decide(
    ledger: Ledger, state: ChainState, found: Sequence[Republication], samples: Samples, ti: TaskInstance
) -> Replay | ReplayRefused:
    from trainflow.checkpoints.ledger.ancestors import line_from_head, rewinds_from_newest
    from trainflow.checkpoints.upkeep.changed_samples import replay_of, vanished

    def gone_after(to: str | None) -> list[datetime]:
        return vanished(line_from_head(ledger, state), samples, ti.project_root, ti.clock.now(), to)

    def parent_of(checkpoint_id: str) -> str | None:
        return next(entry.parent_id for entry in line_from_head(ledger, state) if entry.id == checkpoint_id)

    earlier = rewinds_from_newest(ledger, state, _PAST)
    return replay_of(found, ledger.kept(), parent_of, list(earlier), ti.clock.now(), gone_after)


def observe_upstream(ledger: Ledger, init: InitFrom | None) -> UpstreamSeen | None:
    """What a checkpoint that is committed now records of the upstream; None: the stage has none that it follows, or
    stands on its own from the moment it was forked or was given one certain checkpoint."""
    from trainflow.checkpoints.ledger.entries import UpstreamSeen

    if init is None or init.checkpoint_id is not None or init.chain.is_same_stage(ledger.chain):
        return None
    return UpstreamSeen(init.chain, ledger.other(init.chain).state().generation)


def rewind_after_upstream(ledger: Ledger, ti: TaskInstance) -> str:
    """Rewind the chain to before what came from undone checkpoints of its upstream. Returns a clause for the note;
    empty: there is nothing of that. One entry: an attempt after a kill finds nothing to do. Raises LedgerCorrupt,
    StoreFailure."""
    from trainflow.checkpoints.ledger_changes.rewind import rewind
    from trainflow.checkpoints.stages.upstream_rewinds import upstream_rewind

    back = upstream_rewind(ledger)
    if back is None:
        return ""
    why = f"{back.upstream} was rewound to before what checkpoint {back.first} was trained from"
    if back.pruned:
        said = f"{why}, and the checkpoint before that was pruned: it stays. To train it again, rewind further back"
        ti.log.warning("%s", said)
        return said
    head = ledger.state().head
    assert head is not None
    try:
        rewind(
            ledger,
            back.to_id,
            expected_head=head.id,
            by=author_of(ti),
            now=ti.clock.now(),
            reason=why,
            cause="upstream",
        )
    except ChainMoved:
        return ""
    ti.log.warning("%s: rewound, and trained forward again", why)
    return f"rewound, and trained forward again: {why}"
