"""What the operators after the checkpoint task share: the head they were handed, and the way into its chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

import msgspec

from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.xcom_arg import XComArg
from trainflow.errors import ChangedFile, FailException, RestartException, SampleChanged, SampleError
from trainflow.observability.processes import hostname
from trainflow.operators.chain.head import Head, HeadOfOtherVersion, head_from_xcom
from trainflow.operators.chain.storage_options import (
    checkpoint_options,
    foreign_options,
    open_chain_store,
    sample_options,
)
from trainflow.samples.spec import Samples

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.ledger.entries import Author, SupersededAttempt
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.checkpoints.ledger_changes.import_spec import Adopt
    from trainflow.samples.splits.split import Split
    from trainflow.storage.store import Store


#: what the tasks of a chain import between them
WARM_MODULES = (
    "fsspec.implementations.local",
    "pyarrow.parquet",
    "trainflow.checkpoints.artifact_cache",
    "trainflow.checkpoints.commit.artifacts",
    "trainflow.checkpoints.commit.commit",
    "trainflow.checkpoints.ledger.ledger_writer",
    "trainflow.checkpoints.saves.intermediate_saves",
    "trainflow.checkpoints.ledger_changes.prune",
    "trainflow.checkpoints.ledger_changes.regrid",
    "trainflow.checkpoints.commit.commit_decision",
    "trainflow.checkpoints.upkeep.changed_samples",
    "trainflow.operators.training.background_saves",
    "trainflow.operators.training.ended_training",
    "trainflow.samples.rows.batches",
    "trainflow.samples.columns.unify",
    "trainflow.samples.splits.split_xcom",
    "trainflow.samples.splits.next_split",
)


class ChainOperator(BaseOperator):
    """An operator that works on the chain whose head `checkpoint` is (the output of a CheckpointOperator).

    `storage_options` are for the checkpoint store; by default those of that CheckpointOperator are used, so they are
    written once. They never travel through an XCom.
    """

    template_fields: ClassVar[Sequence[str]] = ("checkpoint",)
    warm_modules: ClassVar[Sequence[str]] = WARM_MODULES

    def __init__(self, *, checkpoint: Any, storage_options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.checkpoint = checkpoint
        self.storage_options = storage_options if storage_options is not None else _options_of(checkpoint)
        #: where the keys are written that a refusal may be about, by key; of a pipeline file
        self.written_at: dict[str, str] = {}
        #: what makes the head; None: it was given as it is
        self._head_made_by: str | None = checkpoint.operator.task_id if _is_xcom(checkpoint) else None
        self._adopt: Adopt | None = getattr(checkpoint.operator, "adopt", None) if _is_xcom(checkpoint) else None

    def warm_up(self, project_root: Path) -> None:
        from trainflow.samples.splits.split import Split

        super().warm_up(project_root)
        # of what tasks hand to each other the fields are looked up once, by their names
        for handed in (Head, Split):
            msgspec.json.Decoder(handed)

    def head(self) -> Head:
        """The head that was handed over. Raises FailException for anything else, and RestartException for one of
        another version of trainflow."""
        try:
            return head_from_xcom(self.checkpoint, self.task_id)
        except HeadOfOtherVersion as error:
            raise restart_or_fail(str(error), self._head_made_by) from None

    def place_of(self, key: str, ti: TaskInstance) -> str:
        """Where a person has written this key: file and line of a pipeline file; of a pipeline in Python file and
        task."""
        path = Path(self.dag.fileloc or self.dag.dag_id)
        file = path.relative_to(ti.project_root).as_posix() if path.is_relative_to(ti.project_root) else str(path)
        return self.written_at.get(key, f"{file}, task {self.task_id!r}")

    def open_store(self, head: Head, ti: TaskInstance) -> Store:
        """The store of the chain."""
        return open_chain_store(
            head.store, given=self.storage_options, settings=ti.settings, root=ti.project_root, home=ti.home
        )

    def open_ledger(self, head: Head, ti: TaskInstance) -> Ledger:
        """The ledger of the chain, for this task."""
        from trainflow.checkpoints.ledger.ledger_writer import Ledger

        store = self.open_store(head, ti)
        return Ledger(store, head.chain, of_one_task=True, has_few_files=head.has_few_files)

    def foreign_options(self, ti: TaskInstance) -> dict[str, Any]:
        """The options for the folder that the chain began with, where it adopted one."""
        adopt = self._adopt
        return {} if adopt is None else foreign_options(adopt.path, adopt.storage_options, ti.settings)

    def store_options(self, ti: TaskInstance) -> dict[str, Any]:
        """The options for the checkpoint store."""
        return checkpoint_options(self.storage_options, ti.settings)


class SplitOperator(ChainOperator):
    """An operator that works on the next split (`split`, the output of a DataCheckerOperator) of a chain.

    The samples are reached with the project's settings and the options of that DataCheckerOperator's samples.
    """

    template_fields: ClassVar[Sequence[str]] = ("checkpoint", "split")

    def __init__(self, *, split: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.split = split
        self._sample_options = _sample_options_of(split)
        #: what makes the split; None: it was given as it is
        self._made_by: str | None = split.operator.task_id if _is_xcom(split) else None

    def load_split(self, ti: TaskInstance) -> Split:
        """The split that was handed over, ready to be read. Raises FailException when none was, and RestartException
        for one of another version of trainflow."""
        from trainflow.samples.splits.split_xcom import SplitOfOtherVersion, split_from_xcom

        if not isinstance(self.split, dict):
            raise FailException(
                f"task {self.task_id!r}: 'split' is {self.split!r}, not what a DataCheckerOperator hands over: "
                "give it the output of that task"
            )
        try:
            split = split_from_xcom(self.split, self.store_options(ti), ti.project_root)
        except SplitOfOtherVersion as error:
            raise restart_or_fail(str(error), self._made_by) from None
        return split.reached_by(root=ti.project_root, storage_options=sample_options(self._sample_options, ti.settings))

    @contextmanager
    def bound(self, split: Split, ti: TaskInstance) -> Iterator[None]:
        """Guard work on the split: where files of it are no longer what it names, whatever came of that, the task that
        made it runs again, and all that follows it. Raises RestartException then."""
        from trainflow.samples.files.file_binding import changes

        try:
            yield
        except SampleChanged as error:
            raise self._restart(error) from error
        except Exception as error:
            with suppress(SampleError):  # why it failed, `error` says
                self.check(changes(split), error)
            raise
        try:
            found = changes(split)
        except SampleError as error:
            # what was read by `batches` was bound when it was opened, and the commit looks again
            ti.log.warning("whether the samples are still those of the split could not be looked at: %s", error)
            return
        self.check(found)

    def check(self, found: Sequence[ChangedFile], cause: Exception | None = None) -> None:
        """Raises RestartException where files of the split have changed."""
        from trainflow.samples.files.file_binding import changed

        if found:
            raise self._restart(changed(found)) from cause

    def _restart(self, error: SampleChanged) -> Exception:
        if self._made_by is None:
            return error
        return RestartException(f"the samples changed while the run was at work: {error}", task_id=self._made_by)


def restart_or_fail(why: str, made_by: str | None) -> Exception:
    """What a task raises that cannot read what it was handed: the task that made it runs again, where one did."""
    return FailException(why) if made_by is None else RestartException(why, task_id=made_by)


def _is_xcom(value: Any) -> TypeGuard[XComArg]:
    return isinstance(value, XComArg)


def _options_of(checkpoint: Any) -> dict[str, Any] | None:
    if _is_xcom(checkpoint):
        options: dict[str, Any] | None = getattr(checkpoint.operator, "storage_options", None)
        return options
    return None


def _sample_options_of(split: Any) -> Mapping[str, Any]:
    samples = getattr(split.operator, "samples", None) if isinstance(split, XComArg) else None
    return samples.storage_options if isinstance(samples, Samples) else {}


def author_of(ti: TaskInstance) -> Author:
    """The author of what this attempt records."""
    from trainflow.checkpoints.ledger.entries import Author

    return Author(run_id=ti.run_id, attempt_id=ti.attempt_id, dag_id=ti.dag_id, hostname=hostname())


def superseded_by(ti: TaskInstance) -> list[SupersededAttempt]:
    """The attempts at a task whose place this one has taken."""
    from trainflow.checkpoints.ledger.entries import SupersededAttempt

    return [
        SupersededAttempt(each.attempt_id, ti.task_id, each.outcome or "", each.hostname or "")
        for each in ti.earlier_attempts
    ]
