"""The name of a chain and where its files lie in a store."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from trainflow.identifiers import check_name


class ChainNames(TypedDict):
    """A chain as a message or a row names it."""

    pipeline: str
    stage: str
    branch: str


class ChainKey(msgspec.Struct, frozen=True, order=True):
    """One line of checkpoints. Raises InputError for names that cannot be folders."""

    pipeline: str
    stage: str = "main"
    branch: str = "main"

    def __post_init__(self) -> None:
        check_name(self.pipeline, "pipeline")
        check_name(self.stage, "stage")
        check_name(self.branch, "branch")

    def __str__(self) -> str:
        return self.prefix

    def is_same_stage(self, other: ChainKey) -> bool:
        """Whether both are branches of one stage: over the same samples, so a fork goes on at the other's watermark.
        Another stage has samples of its own and begins with the first of them."""
        return (self.pipeline, self.stage) == (other.pipeline, other.stage)

    @property
    def names(self) -> ChainNames:
        """What it is called, by the kind of name."""
        return ChainNames(pipeline=self.pipeline, stage=self.stage, branch=self.branch)

    @property
    def arguments(self) -> str:
        """How a command line names the chain: its pipeline, and stage and branch where they are not the default."""
        return self._arguments("--branch")

    @property
    def fork_arguments(self) -> str:
        """How `trainflow checkpoints fork` names the chain to fork: its `--branch` is the new one."""
        return self._arguments("--of")

    def _arguments(self, option_of_branch: str) -> str:
        stage = "" if self.stage == "main" else f" --stage {self.stage}"
        branch = "" if self.branch == "main" else f" {option_of_branch} {self.branch}"
        return f"{self.pipeline}{stage}{branch}"

    @property
    def start_arguments(self) -> str:
        """How `trainflow start` names what trains the chain: a pipeline with all its stages, and a branch."""
        return ChainKey(self.pipeline, branch=self.branch).arguments

    @property
    def prefix(self) -> str:
        """The chain's folder in its store."""
        return f"{self.pipeline}/{self.stage}/{self.branch}"

    @property
    def ledger(self) -> str:
        """The folder of the entries."""
        return f"{self.prefix}/ledger"

    def entry(self, sequence: int) -> str:
        """Where the ledger entry of this number is; ten digits, so that names sort as numbers do."""
        return f"{self.ledger}/{sequence:010d}.json"

    @property
    def mark(self) -> str:
        """Which entry is the newest, as the last writer left word of it."""
        return f"{self.prefix}/newest.json"

    @property
    def snapshots(self) -> str:
        """The folder of the snapshots."""
        return f"{self.prefix}/snapshots"

    def snapshot(self, sequence: int) -> str:
        """The snapshot of the state after entry `sequence`."""
        return f"{self.snapshots}/{sequence:010d}.json"

    @property
    def pages(self) -> str:
        """The folder of the pages."""
        return f"{self.prefix}/pages"

    def page(self, name: str) -> str:
        """A page of a long ledger, by its name."""
        return f"{self.pages}/{name}.json"

    @property
    def set_aside(self) -> str:
        """What a person gave up when entries were lost: it cannot be tied to the ledger that is left."""
        return f"{self.prefix}/lost"

    @property
    def artifacts(self) -> str:
        """The folder of the files of checkpoints, a folder an attempt."""
        return f"{self.prefix}/artifacts"

    @property
    def outputs(self) -> str:
        """Where attempts write, when the store is on this machine; what is committed lies elsewhere."""
        return f"{self.prefix}/outputs"

    @property
    def partials(self) -> str:
        """Where attempts save inside their split."""
        return f"{self.prefix}/partials"

    @property
    def splits(self) -> str:
        """Where splits lie that are too large to be handed over in an XCom."""
        return f"{self.prefix}/splits"

    @property
    def dependents(self) -> str:
        """Where the chains that go on from checkpoints of this one are registered."""
        return f"{self.prefix}/dependents"

    def attempt(self, attempt_id: str) -> str:
        """The folder of what one attempt wrote; no other attempt ever uses it."""
        return f"{self.artifacts}/{check_name(attempt_id, 'attempt')}"


class OfChain(msgspec.Struct, frozen=True, kw_only=True):
    """Base of a value that is about a chain: it has the names of that."""

    pipeline: str
    stage: str
    branch: str

    @property
    def chain(self) -> ChainKey:
        """The chain it is about."""
        return ChainKey(self.pipeline, self.stage, self.branch)
