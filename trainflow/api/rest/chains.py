"""Chains: where each is, what its ledger says, its partitions, what comes next, its samples."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from trainflow.api.rest.dag_runs import aware
from trainflow.api.rest.endpoints import ApiCall, EndpointGroup, NoQuery
from trainflow.checkpoints.chain import ChainKey, OfChain
from trainflow.checkpoints.ledger.entries import LedgerEntry
from trainflow.errors import InputError
from trainflow.humanize import counted
from trainflow.insight.chains.known_chains import KnownChain, known_chain
from trainflow.insight.chains.overview import ChainOverview, chain_overview, chains_overview
from trainflow.insight.chains.partition_states import (
    CheckpointBorder,
    PartitionRanges,
    Seen,
    checkpoint_borders,
    looked_at,
    partition_ranges,
    training_seen,
)
from trainflow.insight.chains.partitions import (
    PartitionRange,
    PartitionReport,
    partition_lines,
    partition_report,
    ranges,
)
from trainflow.insight.chains.plan import ChainPlan, plan_pipeline
from trainflow.samples.partitions import count_between, origin

chains = EndpointGroup("Chain")

CHAIN = "/chains/{pipeline}/{stage}/{branch}"
#: partitions that are listed for one answer
_MOST_LISTED = 20_000
#: entries of an answer
_MOST_ENTRIES = 1_000
#: no ledger and no table is longer
_LARGEST = 2**53


class Chains(msgspec.Struct, frozen=True):
    """All chains of the project."""

    chains: list[ChainOverview]


@chains.get("/chains")
def list_chains(call: ApiCall[NoQuery, None]) -> Chains:
    """List the chains: head, watermark, lag, what stopped them, and why nothing is training, or what is."""
    return Chains(chains_overview(call.workspace, call.now))


@chains.get(CHAIN)
def get_chain(call: ApiCall[NoQuery, None]) -> ChainOverview:
    """Show a chain, as `GET /chains` does."""
    return chain_overview(call.workspace, key_of(call), call.now)


def key_of(call: ApiCall[Any, Any]) -> ChainKey:
    """The chain that a path names. Raises InputError for what cannot name one."""
    return ChainKey(call.path["pipeline"], call.path["stage"], call.path["branch"])


def chain_of(call: ApiCall[Any, Any]) -> KnownChain:
    """The chain that a path names. Raises NotFound."""
    return known_chain(call.workspace, key_of(call))


# -- ledger --------------------------------------------------------------------------------------------------------


class EntriesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`after`: the number of the last entry that is known."""

    after: Annotated[int, Meta(ge=0, le=_LARGEST)] = 0
    limit: Annotated[int, Meta(ge=1, le=_MOST_ENTRIES)] = 100


class Entries(OfChain, frozen=True, kw_only=True):
    """Entries of a ledger, oldest first. `newest`: the number of the newest that there is; `next_after`: what `after`
    is for those behind these; null: there are none."""

    entries: list[LedgerEntry]
    newest: int
    next_after: int | None


@chains.get(f"{CHAIN}/entries")
def list_entries(call: ApiCall[EntriesQuery, None]) -> Entries:
    """List the entries of a chain's ledger, oldest first, from the one after `after` on."""
    ledger = chain_of(call).chain.ledger()
    newest = ledger.state().sequence
    found = list(islice(ledger.since(call.query.after), call.query.limit)) if call.query.after < newest else []
    last = found[-1].sequence if found else newest
    return Entries(
        **ledger.chain.names, entries=found, newest=newest, next_after=last if found and last < newest else None
    )


# -- partitions ----------------------------------------------------------------------------------------------------


class RangesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`look`: list what is beyond the chain's end, the holes, and what policy looks at; without it nothing is listed.
    `first` and `end` (exclusive): the partitions whose checkpoints are wanted, too."""

    look: bool = False
    first: Annotated[int, Meta(ge=0, le=_LARGEST)] | None = None
    end: Annotated[int, Meta(ge=0, le=_LARGEST)] | None = None


class ChainCalendar(PartitionRanges, frozen=True, kw_only=True):
    """Partitions as ranges `[first, how many, state]`. `borders`: of the checkpoints that were asked for, each `[its
    newest partition, its number, its size in bytes]`."""

    borders: list[CheckpointBorder]


@chains.get(f"{CHAIN}/partitions")
def get_partition_ranges(call: ApiCall[RangesQuery, None]) -> ChainCalendar:
    """Show the partitions of a chain as ranges of one state, however many there are."""
    known, query = chain_of(call), call.query
    samples, ledger = known.chain.existing_samples(), known.chain.ledger()
    seen = training_seen(call.workspace, known.chain.dag_id)
    if query.look:
        seen = [*looked_at(ledger, samples, known.chain.root, call.now), *seen]
    found = partition_ranges(ledger, samples, call.now, Seen(seen))
    borders = []
    if query.first is not None and query.end is not None:
        borders = checkpoint_borders(ledger, samples, query.first, query.end)
    return ChainCalendar(**msgspec.structs.asdict(found), borders=borders)


@chains.get(f"{CHAIN}/partitions/{{partition}}")
def get_partition(call: ApiCall[NoQuery, None]) -> PartitionReport:
    """Show one partition, named by its start: its files, what checks say, which checkpoint was trained on it."""
    return partition_report(chain_of(call).chain, call.path["partition"], call.now)


class SamplesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Partitions that start in `[since, until)`; by default those from the table's start to where anything is known."""

    since: datetime | None = None
    until: datetime | None = None


class SampleRanges(OfChain, frozen=True, kw_only=True):
    """Partitions as the storage shows them, neighbours of one state and reason as one."""

    ranges: list[PartitionRange]


@chains.get(f"{CHAIN}/samples")
def list_samples(call: ApiCall[SamplesQuery, None]) -> SampleRanges:
    """List the partitions of a chain's samples: the storage is listed, as `trainflow samples list` does."""
    chain = chain_of(call).chain
    samples = chain.existing_samples()
    since, until = aware(call.query.since), aware(call.query.until)
    asked = count_between(samples, since or origin(samples), until or call.now)
    if asked > _MOST_LISTED:
        raise InputError(
            f"{counted(asked, 'partition')} would be listed, and {_MOST_LISTED:,} are at most: give since and until, "
            "or ask for …/partitions, which lists nothing"
        )
    lines = partition_lines(samples, chain.ledger(), since, until, chain.root, call.now)
    return SampleRanges(**chain.key.names, ranges=ranges(lines))


# -- what comes next -----------------------------------------------------------------------------------------------


class PlanQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`runs`: look at so many runs at the most."""

    runs: Annotated[int, Meta(ge=1, le=1000)] = 100


@chains.get(f"{CHAIN}/plan")
def get_plan(call: ApiCall[PlanQuery, None]) -> ChainPlan:
    """Show the runs that would train what is ready now, from the head on; nothing is changed."""
    known = chain_of(call)
    key = known.chain.key
    (found,) = plan_pipeline(known.as_known(), key.stage, key.branch, call.now, most=call.query.runs).chains
    return found
