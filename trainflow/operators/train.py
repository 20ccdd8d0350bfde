"""TrainOperator: train on the split, from the head of the chain."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from trainflow.authoring.context import Context
from trainflow.bootstrap import interpreter
from trainflow.errors import ArtifactsRefused, FailException, InputError, TaskError, describe
from trainflow.humanize import bytes_text
from trainflow.observability.redaction import redact
from trainflow.operators import function_reference
from trainflow.operators.chain.chain_operator import SplitOperator, restart_or_fail, superseded_by
from trainflow.operators.chain.head import Head
from trainflow.operators.chain.parent import (
    artifact_cache,
    attempt_scratch,
    clear_scratch,
    earlier_artifacts,
    fetch_parent,
)
from trainflow.operators.chain.run_conf import params_of
from trainflow.operators.chain.storage_options import sample_options
from trainflow.operators.training.save_points import SavePoints, StoredSaves, TaskStopRequest
from trainflow.operators.training.training_context import (
    ParentCheckpoint,
    TrainContext,
    TrainFunction,
    checked_metrics,
    enter_tracking_run,
    metrics_to_xcom,
    seed_of,
    tracking_variables,
    uses_mlflow,
)
from trainflow.settings.executors import MOST_NODES

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.checkpoints.saves.intermediate_saves import IntermediateSaves
    from trainflow.operators.training.command import TrainingCommand
    from trainflow.samples.splits.split import Split
    from trainflow.settings.model import Settings

#: what runs a rank that calls a function
RANK_MODULE = "trainflow.execution.ranks.rank_main"


class TrainOperator(SplitOperator):
    """Train on `split`, from the checkpoint that `checkpoint` names, and take stock of the files that were written.

    Either `function` - a callable or `"module.path:name"`, called with a TrainContext, which writes the new
    checkpoint's files into `ctx.output` and returns metrics - or `command`, a program that is told the same in a JSON
    file (see `trainflow.operators.training.training_task`). `params` (Airflow's: with those of the DAG, overridden by
    the run's conf) are `ctx.params`.

    Every attempt writes into a folder of its own, in which nothing was before and into which no other ever writes; what
    an attempt leaves that does not reach the commit is swept away later. What can never be committed (a link out of the
    folder, a pipe) fails the task for good, at the next save: no other try would write anything else. A link to what
    is in the folder becomes a copy. Digests are taken after the function has
    returned. Writing no file at all is an error, and so is returning anything but metrics.

    What is trained on is the content that the split names: `batches` refuses a file that is another one when it is
    opened, and all of them are looked at when training has ended. Where one has changed, nothing of it is committed:
    the split is made again, and trained on from the parent.

    What it saves inside the split (`ctx.save`) goes into the chain's store, for whichever attempt trains the same next;
    into a store elsewhere it is uploaded while training goes on. An attempt that is killed while what was trained is
    uploaded is not trained again in the same run and home: the next one uploads what is missing.

    With `nodes` = N it is N processes that train together, each an interpreter of its own, on hosts of their own where
    the executor can do that: `ctx.rank` and `ctx.world_size` say which one it is (as RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR and MASTER_PORT do), `ctx.batches` gives each its share of the split. `output` is one folder for all of
    a host; what ranks on other hosts write there is added to that of rank 0. Rank 0 saves and reports, its
    metrics count. When a rank ends badly all of them end, and the attempt with them; when rank 0 has stopped as it was
    told, too.

    Returns {"artifacts", "metrics", "rows", "attempt_id", "parent", "origin", "split", "params", "saves",
    "local_saves"} for the CommitCheckpointOperator.
    """

    template_fields: ClassVar[Sequence[str]] = ("checkpoint", "split", "command")
    role = "train"

    def __init__(
        self,
        *,
        task_id: str = "train",
        checkpoint: Any,
        split: Any,
        function: TrainFunction | str | None = None,
        command: Sequence[str] | None = None,
        nodes: int = 1,
        storage_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_id=task_id, checkpoint=checkpoint, split=split, storage_options=storage_options, **kwargs)
        function_reference.check_either(self.task_id, function, command)
        self.nodes = _checked_nodes(nodes, self.task_id)
        self.function = function
        self.command = None if command is None else list(command)
        #: what trains, before anything is rendered: the same for every run
        self._trainer = function_reference.reference_of(function) if function is not None else self.command
        self._running: TrainingCommand | None = None

    def warm_up(self, project_root: Path) -> None:
        from trainflow.samples.rows.batches import warm_up

        super().warm_up(project_root)
        if self.function is not None:
            warm_up()
            function_reference.resolve(self.function, project_root)

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns what was trained (see the class)."""
        from trainflow.checkpoints.commit.artifacts import output_folder
        from trainflow.operators.training.background_saves import background_saves
        from trainflow.operators.training.ended_training import OutputSealer, local_saves

        ti = context["ti"]
        head, split = self.head(), self.load_split(ti)
        if (refused := head.refuses(split.start, split.end)) is not None:
            raise restart_or_fail(f"the split was decided for another head: {refused}", self._made_by)
        ledger = self.open_ledger(head, ti)
        output = output_folder(ledger.store, head.chain, ti.attempt_id, ti.home.attempts_scratch)
        parent = fetch_parent(ledger, head, split, ti, self.foreign_options(ti))
        stored = self._saves(context, ledger, head, split, parent)
        is_here = ledger.store.local_path("") is not None
        here = None if is_here else local_saves(ti.home, stored.training, ti.run_id)
        earlier = partial(earlier_artifacts, ledger, head, split)
        background = None if here is None else background_saves(stored, here, earlier, ti.log)
        saves = StoredSaves(stored, ti, split, output, background)
        training = self._training(context, head, split, output, parent, saves)
        sealer = OutputSealer(ledger, here, output, ti, artifact_cache(ti), earlier)
        try:
            ended = sealer.ended()
            with self.bound(split, ti), _telling_full_disk(output, head):
                metrics = self._train(training, saves, ti) if ended is None else ended.metrics
            saves.finish(needed=False)
            artifacts = sealer.seal(ended or sealer.end(metrics))
        except ArtifactsRefused as error:
            sealer.refused(for_good=error.for_good)
            if not error.for_good:
                raise
            raise FailException(f"{error}. What was trained so far is kept in {sealer.output}") from error
        finally:
            saves.finish(needed=True)
            clear_scratch(attempt_scratch(ti), sealer.kept)
        return {
            "artifacts": msgspec.to_builtins(artifacts),
            "metrics": metrics,
            "rows": split.rows,
            "attempt_id": ti.attempt_id,
            "parent": head.id,
            "origin": msgspec.to_builtins(head.origin_of(split.start, split.end)),
            "split": split.digest,
            "params": redact(dict(training.params)),  # for the record: the function was given them as they are
            "saves": stored.any,
            "local_saves": None if here is None else here.name,
            "superseded": msgspec.to_builtins(superseded_by(ti)),
        }

    def _train(self, training: TrainContext, saves: StoredSaves, ti: TaskInstance) -> dict[str, float | str]:
        if self.function is not None and self.nodes == 1:
            return metrics_to_xcom(self._run_function(training, ti))
        return metrics_to_xcom(self._run_processes(training, saves, ti))

    def on_kill(self) -> None:
        if self._running is not None:
            self._running.stop()

    def _saves(
        self, context: Context, ledger: Ledger, head: Head, split: Split, parent: ParentCheckpoint | None
    ) -> IntermediateSaves:
        """What attempts at this training save. Its name has nothing of the run or the database in it: what trains
        the same again goes on from there. A person who clears the task wants the split to be begun anew."""
        from trainflow.checkpoints.saves.intermediate_saves import IntermediateSaves
        from trainflow.checkpoints.saves.training_identity import TrainingIdentity, training_name

        ti, params = context["ti"], params_of(context.get("params"))
        weights = None if parent is None else parent.id
        what = TrainingIdentity(
            weights=weights,
            generation=head.generation,
            split_digest=split.digest,
            task_id=ti.task_id,
            map_index=ti.map_index,
            function=self._trainer,
            params=params,
        )
        name = training_name(head.id, *what)
        scratch = attempt_scratch(ti) / "partials"
        # what was saved since the run began is an attempt's at this very task
        begun: Collection[str] | None = head.trainings if ti.first_attempt else None
        if begun is None and ledger.store.remote:
            begun = {path.partition("/")[0] for path in ledger.files_in(head.chain.partials)}
        return IntermediateSaves(
            ledger.store, head.chain, name, ti.attempt_id, scratch, not_before=ti.cleared_at, begun=begun
        )

    def _training(
        self,
        context: Context,
        head: Head,
        split: Split,
        output: Path,
        parent: ParentCheckpoint | None,
        saves: StoredSaves,
    ) -> TrainContext:
        ti = context["ti"]
        return TrainContext(
            split=split,
            parent=parent,
            params=params_of(context.get("params")),
            seed=seed_of(head.chain.prefix, split.digest, head.generation),
            output=output,
            run_id=ti.run_id,
            attempt_id=ti.attempt_id,
            logger=ti.log,
            project_root=ti.project_root,
            _report=ti.report_progress,
            _saves=SavePoints(saves, TaskStopRequest(ti), ti.clock, ti.log),
        )

    def _run_function(self, training: TrainContext, ti: TaskInstance) -> dict[str, float]:
        function = self.resolved_function(ti.project_root)
        if uses_mlflow():
            enter_tracking_run(ti)
        metrics = function(training)
        ti.release_stop()
        if training.unread is not None:
            ti.log.warning("%s", training.unread)
            ti.set_note(training.unread)
        return checked_metrics(metrics, f"the training function {function_reference.reference_of(function)}")

    def resolved_function(self, root: Path) -> TrainFunction:
        """The function. Raises FailException where there is none of its name, and what importing its module raises."""
        assert self.function is not None
        found: TrainFunction = function_reference.resolve_for_good(self.function, root)
        return found

    def options_of_samples(self, settings: Settings) -> dict[str, Any]:
        """The options that reach the samples."""
        return sample_options(self._sample_options, settings)

    def _run_processes(self, training: TrainContext, saves: StoredSaves, ti: TaskInstance) -> dict[str, float]:
        """Train with a program, or with a function in several processes."""
        from trainflow.operators.training.command import TrainingCommand
        from trainflow.operators.training.rank_connection import RankConnection
        from trainflow.operators.training.rank_protocol import RankFunction

        argv, function, logs_to_mlflow = self.command, None, True
        if self.function is not None:
            self.resolved_function(ti.project_root)  # what is wrong with its name is said once
            argv, function, logs_to_mlflow = interpreter(RANK_MODULE), RankFunction(ti.source), uses_mlflow()
        assert argv is not None
        links = [RankConnection(connection) for connection in ti.other_ranks]
        if links and len(links) + 1 != self.nodes:
            raise TaskError(f"task '{ti.task_id}' has nodes: {self.nodes}, and {len(links) + 1} hosts have come for it")
        self._running = TrainingCommand(
            argv,
            training,
            saves,
            self.head().chain.prefix,
            attempt_scratch(ti),
            ti,
            nodes=self.nodes,
            function=function,
            links=links,
        )
        return self._running.run(tracking_variables(ti) if logs_to_mlflow else {})


def _checked_nodes(nodes: int, task_id: str) -> int:
    if not 1 <= nodes <= MOST_NODES:
        raise InputError(f"task {task_id!r}: nodes: {nodes}: it must be from 1 to {MOST_NODES}")
    return nodes


@contextmanager
def _telling_full_disk(output: Path, head: Head) -> Iterator[None]:
    """Say of a training that failed since the disk of its output is full which disk that is and what is on it, and give
    back what it took itself: else the next attempts would find no room either."""
    try:
        yield
    except OSError as error:
        disk = shutil.disk_usage(output if output.exists() else output.parent)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or disk.free > disk.total // 10:
            raise  # something else, or another disk
        left = f"{bytes_text(disk.free)} of {bytes_text(disk.total)} are free on the disk of {output}"
        shutil.rmtree(output, ignore_errors=True)
        raise TaskError(
            f"{describe(error)}. {left}; what this attempt wrote there is deleted, what is committed or saved stays. "
            f"'trainflow checkpoints sweep {head.chain.arguments}' deletes what other attempts left, "
            f"'trainflow checkpoints prune {head.chain.arguments}' what the retention does not keep"
        ) from error
