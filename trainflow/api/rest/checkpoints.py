"""Checkpoints: which there are, what each was trained on, its files."""

from __future__ import annotations

import posixpath
from typing import Annotated

import msgspec
from msgspec import Meta

from trainflow.api.rest.chains import CHAIN, chain_of
from trainflow.api.rest.endpoints import BYTES, AnswerFile, ApiCall, EndpointGroup, NoQuery
from trainflow.checkpoints.chain import OfChain
from trainflow.checkpoints.ledger.entries import ArtifactFile
from trainflow.insight.chains.checkpoints import (
    CheckpointDetail,
    CheckpointLine,
    checkpoint_detail,
    checkpoint_file,
    checkpoints_of,
)
from trainflow.insight.chains.lineage import CheckpointLineage, ComparedCheckpoints, compare, lineage

checkpoints = EndpointGroup("Checkpoint")

_CHECKPOINT = f"{CHAIN}/checkpoints/{{checkpoint}}"


class CheckpointsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`before`: only those with a smaller number."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    before: Annotated[int, Meta(ge=1, le=2**53)] | None = None


class Checkpoints(OfChain, frozen=True, kw_only=True):
    """Checkpoints whose files are kept, the newest first. `next_before`: what `before` is for those behind them."""

    checkpoints: list[CheckpointLine]
    next_before: int | None


@checkpoints.get(f"{CHAIN}/checkpoints")
def list_checkpoints(call: ApiCall[CheckpointsQuery, None]) -> Checkpoints:
    """List the checkpoints of a chain whose files are kept, the newest first."""
    chain, query = chain_of(call).chain, call.query
    every = [each for each in reversed(checkpoints_of([chain])) if query.before is None or each.number < query.before]
    found = every[: query.limit]
    more = found[-1].number if len(every) > len(found) else None
    return Checkpoints(**chain.key.names, checkpoints=found, next_before=more)


@checkpoints.get(_CHECKPOINT)
def get_checkpoint(call: ApiCall[NoQuery, None]) -> CheckpointDetail:
    """Show a checkpoint: its split, metrics, files, by whom it was trained.

    `checkpoint`: its number, its id, `head`, or `@` and an alias.
    """
    return checkpoint_detail(chain_of(call).chain, call.path["checkpoint"])


@checkpoints.get(f"{_CHECKPOINT}/lineage")
def get_lineage(call: ApiCall[NoQuery, None]) -> CheckpointLineage:
    """Show every partition that the weights of a checkpoint ever learnt from, in the order of training."""
    return lineage(chain_of(call).chain, call.path["checkpoint"])


class CheckpointFiles(OfChain, frozen=True, kw_only=True):
    """The files of a checkpoint. `number` and `id`: which it is; `size`: of all, in bytes."""

    number: int
    id: str
    size: int
    files: list[ArtifactFile]


@checkpoints.get(f"{_CHECKPOINT}/files")
def list_files(call: ApiCall[NoQuery, None]) -> CheckpointFiles:
    """List the files of a checkpoint, with their digests."""
    chain = chain_of(call).chain
    found = checkpoint_detail(chain, call.path["checkpoint"]).checkpoint
    return CheckpointFiles(
        **chain.key.names,
        number=found.number,
        id=found.id,
        size=found.artifacts.size,
        files=found.artifacts.files,
    )


@checkpoints.get(
    f"{_CHECKPOINT}/files/{{file:path}}", media=(BYTES,), statuses={416: "the file ends before the range begins"}
)
def download_file(call: ApiCall[NoQuery, None]) -> bytes:
    """Download a file of a checkpoint, or a part of it.

    `ETag` is its digest, as the ledger has it: a download that was cut off goes on with `Range` and `If-Range`.
    """
    found = checkpoint_file(chain_of(call).chain, call.path["checkpoint"], call.path["file"])
    name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in posixpath.basename(found.name))
    return AnswerFile(BYTES, found.size, found.read, name, f'"{found.digest}"')  # type: ignore[return-value]


class CompareQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A branch (its head), a checkpoint's number, id or @ALIAS, or BRANCH@NUMBER, for each side."""

    a: Annotated[str, Meta(min_length=1, max_length=300)]
    b: Annotated[str, Meta(min_length=1, max_length=300)]


@checkpoints.get(f"{CHAIN}/compare")
def compare_checkpoints(call: ApiCall[CompareQuery, None]) -> ComparedCheckpoints:
    """Compare two checkpoints or branches: scores side by side, and what each was trained on."""
    return compare(chain_of(call).chain, call.query.a, call.query.b)
