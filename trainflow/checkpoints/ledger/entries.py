"""Ledger entries: what happened to a chain, one file each. A checkpoint's entry is its manifest.

A tagged union (`kind`). A new kind is a new Struct here, a rule in `rules`, a method in `fold`, a shape in `raw_ledger`
and a method in `raw_chain`; an older trainflow that meets it says so and stops instead of guessing. Fields are only
ever added, with a default.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypedDict

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.samples.grid import Grid

FORMAT = 1
#: aware; a naive time in a ledger would mean another instant on another machine
UtcDatetime = Annotated[datetime, msgspec.Meta(tz=True)]


class TrainedPartition(msgspec.Struct, frozen=True, omit_defaults=True):
    """One partition that was trained on; `end` is exclusive, both aware UTC. `fingerprint` is of the content that was
    read; while its listing is that of `hint`, it is what is there."""

    start: UtcDatetime
    end: UtcDatetime
    fingerprint: str
    rows: int | None = None
    hint: str = ""


class HoleRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stretch of time that policy allowed a split to step over."""

    start: UtcDatetime
    end: UtcDatetime
    reason: str = ""


class SplitSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a checkpoint was trained on. Partitions and holes tile [start, end) without overlap and in order."""

    start: UtcDatetime
    end: UtcDatetime
    partitions: list[TrainedPartition]
    holes: list[HoleRecord] = []
    rows: int | None = None
    bytes: int | None = None
    digest: str = ""
    #: name and Arrow type of each column
    columns: tuple[tuple[str, str], ...] = ()


class ArtifactFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file of a checkpoint; `path` is relative to the artifacts' folder, `sha256` is `sha256:<hex>`.

    `source` is of a file that is not in that folder, since an earlier checkpoint has the same bytes: where they are,
    relative to the store, in the folder of the checkpoint that wrote them. That one has no source of its own.
    """

    path: str
    size: int
    sha256: str
    source: str = ""


class Artifacts(msgspec.Struct, frozen=True):
    """The files of a checkpoint; `path` is their folder, relative to the store."""

    path: str
    files: list[ArtifactFile]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def place(self, file: ArtifactFile) -> str:
        """Where the bytes of one of the files are, relative to the store."""
        return file.source or f"{self.path}/{file.path}"

    @property
    def owners(self) -> tuple[str, ...]:
        """The folders of other checkpoints in which bytes of these files are, relative to the store; sorted."""
        return tuple(sorted({folder_of_source(file.source) for file in self.files if file.source}))


def folder_of_source(source: str) -> str:
    """The artifacts' folder that a source is in: `pipeline/stage/branch/artifacts/attempt`."""
    return "/".join(source.split("/", 5)[:5])


class Author(msgspec.Struct, frozen=True, omit_defaults=True):
    """Author of an entry. A person's command has no run, and names the `person`."""

    run_id: str = ""
    attempt_id: str = ""
    dag_id: str = ""
    hostname: str = ""
    person: str = ""


class SupersededAttempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attempt at a task of the run whose place another one took. `outcome`: how it ended, in one word, as far as the
    control plane knows (`lost`, `failed`)."""

    attempt_id: str
    task_id: str
    outcome: str = ""
    hostname: str = ""


class CheckpointRef(msgspec.Struct, frozen=True):
    """A checkpoint of another chain of the same store."""

    chain: ChainKey
    checkpoint_id: str


class UpstreamSeen(msgspec.Struct, frozen=True):
    """The chain that a stage starts from, and how often that had been rewound when it was looked at: up to there the
    line holds nothing that came from what the upstream has undone."""

    chain: ChainKey
    rewinds: int


class GateRefusal(msgspec.Struct, frozen=True):
    """What gates had against a trained checkpoint that was not committed. `end` is exclusive; they are its split's."""

    checkpoint_id: str
    start: UtcDatetime
    end: UtcDatetime
    reasons: list[str]


class Acceptance(msgspec.Struct, frozen=True):
    """A person's decision to commit although gates refused."""

    #: what the gates had against it
    refused: list[str]
    person: str
    reason: str = ""
    #: nothing but names of metrics that do not exist: it was not found to be bad
    misnamed: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every entry holds. `previous` is the digest of the bytes of the entry before; empty in the first.

    `seal` is the digest of the entry's own bytes without it: the newest entry, which no later one speaks of yet, cannot
    be edited in passing either. Who recomputes it can edit the newest entry until the next one is there. Empty until
    the entry is encoded.
    """

    sequence: int
    previous: str
    at: UtcDatetime
    by: Author
    format: int = FORMAT
    seal: str = ""


class EntryHeader(TypedDict):
    """What every entry is made with: its place behind the entry before, when and by whom."""

    sequence: int
    previous: str
    at: datetime
    by: Author


class Checkpoint(Entry, frozen=True, kw_only=True, tag="checkpoint"):
    """A committed checkpoint. Its id is the id of the attempt that wrote the artifacts; its sequence is the ledger's,
    its number is what people call it.

    `metrics` are the trainer's, about this checkpoint; `evaluation` is how the *parent* scored this split before it
    was trained on. JSON has no form for nan and the infinities: those are in `not_finite`, by name.
    """

    id: str
    parent_id: str | None
    watermark: UtcDatetime
    split: SplitSummary
    artifacts: Artifacts
    metrics: dict[str, float] = {}
    evaluation: dict[str, float] = {}
    not_finite: dict[str, str] = {}
    params: dict[str, object] = {}
    #: the weights came from this checkpoint of another chain and not from the parent; the parent is the fence all the
    #: same
    origin: CheckpointRef | None = None
    #: of a stage that starts from another one
    upstream: UpstreamSeen | None = None
    #: from when the split was handed over to the commit
    seconds: float | None = None
    #: it was refused by gates, and accepted by a person
    accepted: Acceptance | None = None
    #: of the table that it was trained on
    grid: Grid | None = None
    #: attempts at its training and at its commit that began before those that count
    superseded: list[SupersededAttempt] = []
    #: the number of its entry in a ledger that was lost, of which it is known by the copy beside its files; 0: it is
    #: not
    recovered: int = 0
    #: what people call it (`state.numbered`); 0 in entries from before checkpoints had one
    number: int = 0


class HoleFilled(Checkpoint, frozen=True, kw_only=True, tag="hole filled"):
    """A checkpoint trained on samples that arrived for a hole: a child of the head with the head's watermark.

    The split lies inside what the line had recorded as holes; what is still missing in it is a hole of its own.
    """


class Skip(Entry, frozen=True, kw_only=True, tag="skip"):
    """Time that is stepped over: the next split records it as a hole. `start` is where the chain ends so far.

    Neither the head nor the watermark moves. `parent_id` is the head, so a chain that has moved on is left alone.
    """

    parent_id: str | None
    start: UtcDatetime
    end: UtcDatetime
    reason: str
    #: the training that was given up for it
    refused: GateRefusal | None = None

    @property
    def on_purpose(self) -> bool:
        """A gate or a person left it out; otherwise it was missing."""
        return self.refused is not None or bool(self.by.person)


class Stop(Entry, frozen=True, kw_only=True, tag="stop"):
    """Gates refused a trained checkpoint: nothing more is committed until a person decides.

    It holds all that a commit would have recorded, so that the checkpoint can be accepted without training again.
    What follows is a checkpoint (accepted), a skip or a rewind, or a `Resume`, with which it is trained again.
    """

    parent_id: str | None
    #: of the checkpoint that was refused
    id: str
    split: SplitSummary
    artifacts: Artifacts
    reasons: list[str]
    metrics: dict[str, float] = {}
    evaluation: dict[str, float] = {}
    not_finite: dict[str, str] = {}
    params: dict[str, object] = {}
    origin: CheckpointRef | None = None
    upstream: UpstreamSeen | None = None
    seconds: float | None = None
    #: the split fills holes
    fills: bool = False
    grid: Grid | None = None
    superseded: list[SupersededAttempt] = []
    #: for no other reason than that metrics are named that do not exist
    misnamed: bool = False


class Regrid(Entry, frozen=True, kw_only=True, tag="regrid"):
    """Change of the grid of the samples, from here on. Neither the head nor the watermark moves.

    `watermark` is where the chain ends, a boundary of the new grid; `holes` is what the table has now before where the
    chain began. A rewind to before this entry takes it back.
    """

    parent_id: str | None
    grid: Grid
    watermark: UtcDatetime
    holes: list[HoleRecord] = []
    #: partitions that were trained and have the same content in the table's new place
    compared: int | None = None
    reason: str = ""


class Resume(Entry, frozen=True, kw_only=True, tag="resume"):
    """A stopped chain goes on: what was refused is given up, and trained again."""

    parent_id: str | None
    reason: str = ""


class Promotion(Entry, frozen=True, kw_only=True, tag="promotion"):
    """A checkpoint of the line gets a name, such as `champion`. The newest promotion of a name counts."""

    checkpoint_id: str
    alias: str
    reason: str = ""


class Prune(Entry, frozen=True, kw_only=True, tag="prune"):
    """The artifacts of these checkpoints go; that they were trained stays on record."""

    checkpoint_ids: list[str]
    reason: str = ""


class Replayed(msgspec.Struct, frozen=True):
    """A partition that is trained again because it was published again: the fingerprint that was trained, and the one
    that was found."""

    start: UtcDatetime
    trained: str
    found: str


class Rewind(Entry, frozen=True, kw_only=True, tag="rewind"):
    """The head moves back to an ancestor (None: to before the first). Nothing is deleted.

    `cause` is who asked for it: `person`, `gate`, `replay`, or `upstream`: what the stage started from was undone.
    """

    to_checkpoint_id: str | None
    reason: str = ""
    cause: str = ""
    #: why, where the cause is `replay`
    replayed: list[Replayed] = []
    #: the training that was given up for it, where gates asked for it
    refused: GateRefusal | None = None
    #: alias → the checkpoint that has it again, since the one that had it is left behind
    promoted: dict[str, str] = {}


class Loss(Entry, frozen=True, kw_only=True, tag="loss"):
    """A person's acceptance that entries are lost and cannot be restored. The chain goes on from what is left.

    `first` to `last` are their numbers, as far as anything knows of them. The head stays, and no run that began before
    may commit.
    """

    parent_id: str | None
    first: int
    last: int
    #: those that left a trace, are in no entry any more, and were not recovered: the chain does not stand on them
    checkpoint_ids: list[str]
    #: why they are known to be lost
    evidence: list[str]
    #: folder in the store with what cannot be tied to what is left
    set_aside: str = ""
    reason: str = ""

    @property
    def rewinds(self) -> int:
        """Number by which the count of rewinds rises: above what it was before, whatever was lost."""
        return self.last - self.first + 2


class ForkedStage(msgspec.Struct, frozen=True):
    """Where a stage goes on in a branch (None: it begins with nothing)."""

    stage: str
    checkpoint_id: str | None


class Fork(Entry, frozen=True, kw_only=True, tag="fork"):
    """The first entry of a branch: it goes on from `origin` at `watermark`, with other parameters."""

    origin: CheckpointRef
    watermark: UtcDatetime
    #: parameter → value, as a person wrote it
    overrides: dict[str, str] = {}
    #: all the stages that were forked by one command, so that one that was cut short is completed as it began
    stages: list[ForkedStage] = []
    #: what that command asked for, where it was not every head
    asked: str = ""
    #: number of the checkpoint that it goes on from; 0: not known
    number: int = 0


class Adoption(Entry, frozen=True, kw_only=True, tag="adoption"):
    """The first entry of a chain that goes on from weights made elsewhere: the files of a foreign folder."""

    uri: str
    watermark: UtcDatetime
    #: `path` is relative to `uri`
    files: list[ArtifactFile]


LedgerEntry = (
    Checkpoint | HoleFilled | Skip | Stop | Regrid | Resume | Promotion | Prune | Rewind | Loss | Fork | Adoption
)
