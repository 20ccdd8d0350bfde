"""Find the project a command is about, and open what it needs of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from trainflow.metadata.database import Database
    from trainflow.metadata.sql_text import ReadableDatabase
    from trainflow.settings.model import Settings
    from trainflow.settings.project import Project


class Workspace:
    """A project and its settings. Its metadata database is opened when it is first asked for, and kept open until the
    workspace is closed, which its `with` block does. `database`: one that this process has open already, as an engine
    has; it is not to be closed here."""

    def __init__(self, project: Project, settings: Settings, database: Database | None = None) -> None:
        self.project = project
        self.settings = settings
        self._database = database

    @classmethod
    def of(cls, project: Project) -> Self:
        """Read the settings of a project. Raises SettingsError."""
        from trainflow.settings.load import load_settings

        return cls(project, load_settings(project))

    @property
    def database(self) -> Database:
        """The metadata database, its schema current; made where there is none yet."""
        if self._database is None:
            self.project.home.create()
            self._database = self._open()
        return self._database

    @property
    def existing_database(self) -> Database | None:
        """The metadata database, its schema current; None where there is none yet."""
        if self._database is None:
            if self.settings.database.url is None and not self.project.home.database.is_file():
                return None
            self._database = self._open()
        return self._database

    @property
    def read_database(self) -> ReadableDatabase | None:
        """The metadata database for what only reads; None where there is none yet. A file of SQLite that nothing in
        this process has opened yet is read without loading SQLAlchemy."""
        file = self.project.home.database
        if self._database is None and self.settings.database.url is None and file.is_file():
            from trainflow.metadata.sqlite_reader import SqliteReader

            reader = SqliteReader.of(file)
            if reader is not None:
                return reader
        return self.existing_database

    def _open(self) -> Database:
        from trainflow.metadata.database import Database
        from trainflow.metadata.schema import ensure_schema

        database = Database.of(self.project.home, self.settings)
        try:
            ensure_schema(database)
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def untouched_database(self) -> Iterator[Database]:
        """The metadata database as it is: nothing is created or migrated."""
        from trainflow.metadata.database import Database

        database = Database.of(self.project.home, self.settings)
        try:
            yield database
        finally:
            database.close()

    def active_runs(self, dag_id: str) -> list[str]:
        """Ids of the runs of a DAG that have not ended; none where there is no database."""
        if self.existing_database is None:
            return []
        from trainflow.metadata.queries import run_queries

        with self.existing_database.reading() as connection:
            return [row.run_id for row in run_queries.unfinished_of(connection, dag_id)]

    def living_attempts(self) -> set[str]:
        """Attempts that may still commit: those that runs which have not ended stand on."""
        if self.existing_database is None:
            return set()
        from trainflow.metadata.queries import attempt_queries

        with self.existing_database.reading() as connection:
            return attempt_queries.of_unfinished_runs(connection)

    def ended_attempts(self) -> set[str]:
        """Attempts of runs that have not ended that others took the place of: one of those may commit what they
        trained."""
        if self.existing_database is None:
            return set()
        from trainflow.metadata.queries import attempt_queries

        with self.existing_database.reading() as connection:
            return attempt_queries.of_unfinished_runs(connection, ended=True)

    def wake_engine(self) -> None:
        """Tell the engine of this home, if one is alive, that there is something new in the database, and those of
        other homes where the database can."""
        from trainflow.executors.execution_socket import nudge
        from trainflow.metadata.change_notices import ChangeNotices

        nudge(self.project.home.socket_path)
        if self._database is not None and ChangeNotices.are_told(self._database):
            ChangeNotices(self._database).tell(None)

    def close(self) -> None:
        """Close what was opened. It is opened again when it is asked for again."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_workspace(pipeline: Path | None = None) -> Workspace:
    """The project of a pipeline file, or the one this folder is in. Raises ProjectError, SettingsError."""
    return Workspace.of(find_project(pipeline))


def find_project(pipeline: Path | None = None) -> Project:
    """The project of a pipeline file, or the one this folder is in; a folder with a home of its own is one too."""
    from trainflow.settings.project import current_project, find_root, project_at, project_of

    if pipeline is not None:
        return project_of(pipeline)
    here = Path.cwd()
    if find_root(here) is None and (here / ".trainflow").is_dir():
        return project_at(here)
    return current_project(here)
