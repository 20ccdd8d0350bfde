"""Every path trainflow keeps in a home. Safe to delete when checkpoints live elsewhere."""

from __future__ import annotations

import errno
import hashlib
import os
from functools import cached_property
from pathlib import Path

import msgspec

from trainflow.errors import SettingsError
from trainflow.observability.log_names import attempt_log_name

#: the same for every process of a host, whatever its environment says
SOCKETS = Path("/tmp")
#: there is no room on the disk, or none left for this user
_FULL = (errno.ENOSPC, errno.EDQUOT)

#: in a folder of local saves: what a training that has ended has left, and where
ENDED_TRAINING = "ended.json"


class Home(msgspec.Struct, frozen=True, dict=True):
    """The folder `.trainflow/` of a project (or `$TRAINFLOW_HOME`)."""

    path: Path

    @property
    def database(self) -> Path:
        """The metadata database, where the settings name no other."""
        return self.path / "trainflow.db"

    @property
    def engine_lock(self) -> Path:
        """The file that the engine of this home holds locked."""
        return self.path / "engine.lock"

    @property
    def engine_log(self) -> Path:
        """The log of the engine."""
        return self.logs / "engine.log"

    @property
    def mlflow_database(self) -> Path:
        """The tracking store, where the settings name no other."""
        return self.path / "mlflow" / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """The artifacts of that store."""
        return self.path / "mlflow" / "artifacts"

    @property
    def scratch(self) -> Path:
        """Working folders of attempts whose checkpoint store is remote."""
        return self.path / "scratch"

    @property
    def attempts_scratch(self) -> Path:
        """A working folder for each attempt, called after it."""
        return self.scratch / "attempts"

    @property
    def runs_scratch(self) -> Path:
        """Copies, for each run, of what is in a store elsewhere."""
        return self.scratch / "runs"

    def run_scratch(self, dag_id: str, run_id: str) -> Path:
        """Copies of what one run reads from a store elsewhere."""
        return self.runs_scratch / hashlib.sha256(f"{dag_id}\n{run_id}".encode()).hexdigest()[:24]

    @property
    def local_saves(self) -> Path:
        """Saves inside a split whose checkpoint store is elsewhere, a folder for each training of a run."""
        return self.path / "saves"

    @property
    def store_copies(self) -> Path:
        """Copies of small files of stores elsewhere, which are not read again while they are the same there."""
        return self.path / "copies"

    @property
    def store_probes(self) -> Path:
        """Notes of stores that were found to create exclusively."""
        return self.path / "probes"

    @property
    def artifact_cache(self) -> Path:
        """Files of checkpoints of stores elsewhere, by their digest."""
        return self.path / "artifacts"

    @property
    def outcomes(self) -> Path:
        """Outcomes of attempts that ended while no engine was there to hear them."""
        return self.path / "outcomes"

    def outcome(self, attempt_id: str, deferral_number: int) -> Path:
        """The outcome of one attempt between two deferrals."""
        return self.outcomes / f"{attempt_id}.{deferral_number}.json"

    @property
    def process_logs(self) -> tuple[Path, ...]:
        """Logs of processes that are no attempts."""
        return self.engine_log, self.logs / "start.log", self.logs / "mlflow.log"

    @property
    def log_upload_mark(self) -> Path:
        """Up to where the log store has the logs of this home."""
        return self.path / "log-uploads.json"

    @property
    def logs(self) -> Path:
        """Logs of this host: of attempts, below what `attempt_log_name` says, and of processes."""
        return self.path / "logs"

    def attempt_log(self, dag_id: str, run_id: str, task_id: str, attempt_id: str) -> Path:
        """The log of one attempt, where it is written on this host."""
        return self.logs / attempt_log_name(dag_id, run_id, task_id, attempt_id)

    @cached_property
    def socket_path(self) -> Path:
        """Where the attempts of this home reach its engine.

        Not inside the home: the path of a UNIX socket may have at most 104 to 108 bytes. The name is a pure function
        of the home, the folder belongs to this user alone. Nor where TMPDIR points, if it can be helped: an attempt
        that outlives its engine must find the next one, and cron or sudo may start that one with another TMPDIR.
        """
        folder = _sockets() / f"trainflow-{os.getuid()}"
        return folder / f"{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:24]}.sock"

    def web_socket_path(self, name: str) -> Path:
        """Where an API server of this home passes on what its web server answers; `name` tells it from others."""
        return self.socket_path.with_name(f"{self.socket_path.stem}.web-{name}.sock")

    def create(self) -> None:
        """Make the folders; a home keeps itself out of git. Raises SettingsError where nothing can be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.path.stat().st_uid == os.getuid():
                # logs, XComs and params are for this user alone; what lies below is as private as this
                self.path.chmod(0o700)
            for folder in (self.outcomes, self.logs):
                folder.mkdir(exist_ok=True)
            ignore = self.path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise self.refused(error) from error

    def refused(self, error: OSError) -> SettingsError:
        """What to say when something in the home cannot be written."""
        from trainflow.observability.file_access import keeps_out

        where = error.filename or self.path
        what = "make room on its disk" if error.errno in _FULL else f"make {self.path} writable"
        if isinstance(error, PermissionError) and (whose := keeps_out(where, to_write=True)) is not None:
            what = f"{whose}: run this as that user, {what}"
        return SettingsError(
            f"the home cannot be written: {where}: {error.strerror or error}; {what}, or set TRAINFLOW_HOME to a "
            f"folder {'with room' if error.errno in _FULL else 'that is'}"
        )


def _sockets() -> Path:
    if os.access(SOCKETS, os.W_OK | os.X_OK):
        return SOCKETS
    import tempfile

    return Path(tempfile.gettempdir())
