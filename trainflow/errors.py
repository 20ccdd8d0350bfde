"""Every error trainflow raises on purpose.

A message says what happened, where (file and line for a pipeline file) and what to do. Facts are attributes,
so that a caller never parses a message. Where Python has a builtin that a caller would catch, it is a second base.

    TrainflowError
    ├── InputError                      the user's input is wrong: exit code 2
    │   ├── PipelineFileError           a pipeline file cannot be read (path, line, column)
    │   ├── SettingsError               configs/trainflow.toml or a TRAINFLOW__… variable
    │   ├── ParamValidationError        params or conf against their schema
    │   ├── UnexpectedArgument          (TypeError) an argument that a DAG or an operator does not have, or needs
    │   ├── DagDefinitionError          a DAG that cannot be: a cycle, a task id used twice, an edge to elsewhere
    │   ├── NotFound                    (LookupError) something that is named is not there
    │   ├── DagNotFound                 (LookupError)
    │   ├── DagRunNotFound              (LookupError)
    │   ├── SamplesRefused              a sample table that can never be trained on as it is
    │   └── ProjectError                no project, or one that cannot be laid out
    ├── SampleError                     something about the samples
    │   ├── SampleUnreadable            a listing or a footer cannot be read
    │   │   ├── SampleDamaged           a file is there and is not whole: it is still being written, or damaged
    │   │   ├── SampleBucketMissing     the bucket or container that the samples are in does not exist
    │   │   ├── SampleFileMissing       (FileNotFoundError) a file is not there
    │   │   └── SampleChanged           a file is no longer what the split names
    │   ├── SampleCheckFailed           a partition is there and is not good
    │   └── SampleGap                   a partition is missing and policy says fail
    ├── CheckpointError
    │   ├── ChainMoved                  the fence: the head is no longer the parent of what was to be committed
    │   ├── CheckpointNotFound          (FileNotFoundError)
    │   ├── LedgerCorrupt               an entry does not parse or breaks the digest chain
    │   │   └── LedgerTooNew            an entry was written by a newer trainflow
    │   ├── ArtifactCorrupt             an artifact is missing or differs from its digest
    │   ├── ArtifactsRefused            what a training function wrote cannot become a checkpoint (nothing, a link, …)
    │   ├── ChainStopped                gates refused a checkpoint, and a person has to decide
    │   ├── StoreNotExclusive           the store cannot create a file only if it is absent
    │   └── StoreFailure                (OSError) the store refused a read or a write
    │       ├── StoreDenied             the store refuses who asks, or the way it is asked
    │       └── StoreMissing            the bucket or container of the store does not exist
    ├── StateError
    │   ├── LostTransition              a guarded move found the row elsewhere
    │   ├── IllegalTransition           a move that no table allows
    │   └── DagRunAlreadyExists         (ValueError) the run id is taken
    ├── ProtocolError                   a frame or a message that cannot be understood
    ├── EngineError                     a part of the control plane cannot go on
    │   ├── EngineAlreadyRunning        another engine owns this home
    │   ├── DatabaseUnavailable         the metadata database could not be used for a minute
    │   ├── DatabaseDamaged             the file of the metadata database is damaged
    │   ├── DelivererLost               the process that writes to MLflow died; delivering again is safe
    │   └── DeliveryRefused             another system did not take what it was told
    └── TaskError                       raised by or into task code
        ├── FailException               fail now, whatever retries are left
        ├── SkipException               end as skipped
        ├── RescheduleException         give the slot back and try again later
        ├── RestartException            let an earlier task of the run, and all that follows it, run again
        ├── SensorTimeout               a sensor waited long enough; never retried
        ├── TemplateError               a template field cannot be rendered
        ├── TriggerFailed               the trigger a task waited for crashed or ended without an event
        ├── TriggerTimeout              (TimeoutError) the timeout of a deferral passed
        └── XComTooLarge

What interrupts a task (a deferral, a timeout, a stop) is no error: see `trainflow.task_signals`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple


class TrainflowError(Exception):
    """Base of every error trainflow raises on purpose."""


def message_of(error: BaseException) -> str:
    """`str(error)`, also of an exception of the user's whose own `__str__` fails."""
    try:
        return str(error)
    except Exception as failed:
        return f"(its message cannot be shown: {type(failed).__name__} in __str__)"


def describe(error: BaseException) -> str:
    """What an exception says, in one text: the name of its class and its message. Errors of this package say all there
    is to say in their messages, and are told without the name."""
    name, message = type(error).__name__, message_of(error)
    is_ours = type(error).__module__.partition(".")[0] == "trainflow"
    return message if is_ours and message else f"{name}: {message}" if message else name


# -- input ---------------------------------------------------------------------------------------------------------
class InputError(TrainflowError):
    """What the user gave cannot be used."""


class PipelineFileError(InputError):
    """A pipeline file cannot be read. Attributes: path, line and column (1-based, None when unknown), problem."""

    def __init__(self, problem: str, *, path: str, line: int | None = None, column: int | None = None) -> None:
        self.problem, self.path, self.line, self.column = problem, path, line, column
        where = path if line is None else f"{path}:{line}" if column is None else f"{path}:{line}:{column}"
        super().__init__(f"{where}: {problem}")


class SettingsError(InputError):
    """A setting cannot be used."""


class ParamValidationError(InputError, ValueError):
    """A parameter does not satisfy its schema."""


class UnexpectedArgument(InputError, TypeError):
    """An argument that a DAG or an operator does not have, or that it needs. Attributes: owner, argument."""

    def __init__(self, message: str, *, owner: str, argument: str) -> None:
        super().__init__(message)
        self.owner = owner
        self.argument = argument


class DagDefinitionError(InputError, ValueError):
    """A DAG that cannot be. Attribute: task_ids, the tasks it is about."""

    def __init__(self, message: str, *, task_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.task_ids = task_ids


class NotFound(InputError, LookupError):
    """What a person or a program names is not there: a checkpoint, a chain, a task, a pool."""


class DagNotFound(InputError, LookupError):
    """No DAG has this id."""


class DagRunNotFound(InputError, LookupError):
    """No run has this id."""


class SamplesRefused(InputError):
    """A sample table that can never be trained on as it is, or as it is asked for: the next try would find the same."""


class ProjectError(InputError):
    """The folder is not, or cannot become, a project."""


# -- samples -------------------------------------------------------------------------------------------------------
class SampleError(TrainflowError):
    """A problem with the samples."""


class SampleUnreadable(SampleError):
    """A listing or a file of samples cannot be read. Attribute: partition (start of the one whose file it is; None: of
    none, or not known)."""

    def __init__(self, message: str, *, partition: datetime | None = None) -> None:
        super().__init__(message)
        self.partition = partition


class SampleDamaged(SampleUnreadable):
    """A file of samples can be reached and is not whole: it is still being written, or damaged. Attribute: problem, a
    clause that names the file."""

    def __init__(self, message: str, *, problem: str, partition: datetime | None = None) -> None:
        super().__init__(message, partition=partition)
        self.problem = problem


class SampleBucketMissing(SampleUnreadable):
    """The bucket or container that samples are in does not exist: no wait and no further try makes it."""


class SampleFileMissing(SampleUnreadable, FileNotFoundError):
    """A file of samples is not there."""


class ChangedFile(NamedTuple):
    """A file of a split with the fingerprint that the split names, and the one that was found (None: it is gone)."""

    path: str
    was: str
    found: str | None


class SampleChanged(SampleUnreadable):
    """Files are no longer what the split names. Attribute: changes."""

    def __init__(self, message: str, *, changes: tuple[ChangedFile, ...]) -> None:
        super().__init__(message)
        self.changes = changes


class SampleCheckFailed(SampleError):
    """A partition is there and is not good. Attributes: partition (its start), problems."""

    def __init__(self, message: str, *, partition: datetime, problems: tuple[str, ...]) -> None:
        super().__init__(message)
        self.partition = partition
        self.problems = problems


class SampleGap(SampleError):
    """A partition is missing, later ones are there, and the gap policy says fail. Attribute: partition."""

    def __init__(self, message: str, *, partition: datetime) -> None:
        super().__init__(message)
        self.partition = partition


# -- checkpoints ---------------------------------------------------------------------------------------------------
class CheckpointError(TrainflowError):
    """A problem with checkpoints, their ledger or their store."""


class _LocatedError(CheckpointError):
    """A problem with one file or folder. Attribute: location."""

    def __init__(self, message: str, *, location: str) -> None:
        super().__init__(message)
        self.location = location


class ChainMoved(CheckpointError):
    """The fence. Another attempt committed a child of the parent first; this attempt changed nothing.

    Attributes: expected_sequence (of the parent that was read), head_sequence (what the ledger holds now).
    """

    def __init__(self, message: str, *, expected_sequence: int, head_sequence: int) -> None:
        super().__init__(message)
        self.expected_sequence = expected_sequence
        self.head_sequence = head_sequence


class CheckpointNotFound(CheckpointError, FileNotFoundError):
    """No committed checkpoint has this id or sequence."""


class LedgerCorrupt(_LocatedError):
    """A ledger entry does not parse or breaks the digest chain. Attribute: location."""


class LedgerTooNew(LedgerCorrupt):
    """A ledger entry is of a format or kind that this version does not know: nothing is wrong with it."""


class ArtifactCorrupt(_LocatedError):
    """An artifact is missing, has another size or another digest. Attribute: location."""


class ArtifactsRefused(_LocatedError):
    """What a training function left in its output folder cannot become a checkpoint. Attributes: location, for_good
    (something is there that can never be committed, and the next try would write it again)."""

    def __init__(self, message: str, *, location: str, for_good: bool = False) -> None:
        super().__init__(message, location=location)
        self.for_good = for_good


class ChainStopped(CheckpointError):
    """Gates refused a checkpoint, and a person has to decide; until then nothing is committed.

    Attributes: reasons, checkpoint_id (that was refused), sequence (of the ledger entry that says so).
    """

    def __init__(self, message: str, *, reasons: tuple[str, ...], checkpoint_id: str, sequence: int) -> None:
        super().__init__(message)
        self.reasons, self.checkpoint_id, self.sequence = reasons, checkpoint_id, sequence


class StoreNotExclusive(CheckpointError):
    """The store cannot create a file only if it is absent, so it cannot fence."""


class StoreFailure(_LocatedError, OSError):
    """The store refused a read or a write. Attribute: location."""


class StoreDenied(StoreFailure):
    """The store refuses the credentials, the rights or the way in which it is asked (certificate, clock, region, host
    key, read-only disk): no further try helps until a person changes that."""


class StoreMissing(StoreFailure):
    """The bucket or container of the store does not exist: no further try makes it."""


# -- state ---------------------------------------------------------------------------------------------------------
class StateError(TrainflowError):
    """A problem with the state of a run or a task instance."""


class LostTransition(StateError):
    """A guarded move found no row in the states (or of the attempt) it may leave from; nothing was changed."""


class IllegalTransition(StateError):
    """No table of legal moves allows this one: a bug in the caller."""


class DagRunAlreadyExists(StateError, ValueError):
    """The run id is taken, and not by the same trigger. Attributes: dag_id, run_id."""

    def __init__(self, message: str, *, dag_id: str, run_id: str) -> None:
        super().__init__(message)
        self.dag_id = dag_id
        self.run_id = run_id


# -- processes -----------------------------------------------------------------------------------------------------
class ProtocolError(TrainflowError):
    """A frame or a message that cannot be understood."""


class EngineError(TrainflowError):
    """A part of the control plane cannot go on."""


class EngineAlreadyRunning(EngineError):
    """Another engine owns this home. Attribute: pid."""

    def __init__(self, message: str, *, pid: int) -> None:
        super().__init__(message)
        self.pid = pid


class DatabaseDamaged(EngineError):
    """The file of the metadata database is damaged: what is read from it cannot be relied on."""


class DatabaseUnavailable(EngineError):
    """The metadata database could not be used for longer than is waited for it. Nothing was half written."""


class DelivererLost(EngineError):
    """The process that writes to MLflow died or does not answer. Whether it delivered is unknown; again is safe."""


class DeliveryRefused(EngineError):
    """Another system did not take what it was told. `retry` False: it refuses the content. One line, no secrets."""

    def __init__(self, message: str, *, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


# -- task code -----------------------------------------------------------------------------------------------------
class TaskError(TrainflowError):
    """Raised by or into task code."""


class FailException(TaskError):
    """Fail now, whatever retries are left (Airflow: AirflowFailException)."""


class SkipException(TaskError):
    """End as skipped (Airflow: AirflowSkipException)."""


class RescheduleException(TaskError):
    """Give the slot back, and try again after so long, or at a moment by the clock (and zone) of the task's host."""

    def __init__(self, reschedule_at: datetime | timedelta) -> None:
        self.reschedule_at = reschedule_at.astimezone() if isinstance(reschedule_at, datetime) else reschedule_at
        super().__init__(f"look again {'in' if isinstance(reschedule_at, timedelta) else 'at'} {reschedule_at}")


class RestartException(TaskError):
    """Let task `task_id` of the run, which this task follows, run again with all that follows it. Uses up no retry;
    a run does that a few times at most. Attribute: task_id."""

    def __init__(self, message: str, *, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id


class SensorTimeout(FailException, TimeoutError):
    """A sensor waited long enough; never retried (Airflow: AirflowSensorTimeout)."""


class TemplateError(TaskError):
    """A template field cannot be rendered. Attributes: task_id, field, expression."""

    def __init__(self, message: str, *, task_id: str, field: str, expression: str) -> None:
        super().__init__(message)
        self.task_id, self.field, self.expression = task_id, field, expression


class TriggerFailed(TaskError):
    """The trigger a task waited for crashed, could not be made, or ended without an event."""


class TriggerTimeout(TaskError, TimeoutError):
    """The `timeout` of a deferral passed before its trigger fired."""


class XComTooLarge(TaskError, ValueError):
    """A value is too large to hand over inline; put it in a file and hand over its location."""
