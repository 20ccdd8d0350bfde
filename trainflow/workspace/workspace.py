"""Find the project a command is about, and open what it needs of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trainflow.clock import SystemClock
from trainflow.errors import InputError

if TYPE_CHECKING:
    from trainflow.metadata.database import Database
    from trainflow.settings.model import Settings
    from trainflow.settings.project import Project


class Opened(NamedTuple):
    """A project, its settings, its database (the schema is there and current)."""

    project: Project
    settings: Settings
    database: Database
    clock: SystemClock


@contextmanager
def opened(pipeline: Path | None = None) -> Iterator[Opened]:
    """The project of a pipeline file, or the one this folder is in. Raises ProjectError, SettingsError."""
    from trainflow.metadata.database import Database
    from trainflow.metadata.schema import ensure_schema
    from trainflow.settings.load import load_settings

    project = find_project(pipeline)
    settings = load_settings(project)
    project.home.create()
    database = Database.of(project.home, settings)
    try:
        ensure_schema(database)
        yield Opened(project, settings, database, SystemClock())
    finally:
        database.close()


@contextmanager
def existing_database(project: Project, settings: Settings) -> Iterator[Database | None]:
    """The database of a project, its schema current; None where there is none yet."""
    if settings.database.url is None and not project.home.database.is_file():
        yield None
        return
    from trainflow.metadata.database import Database
    from trainflow.metadata.schema import ensure_schema

    database = Database.of(project.home, settings)
    try:
        ensure_schema(database)
        yield database
    finally:
        database.close()


def find_project(pipeline: Path | None = None) -> Project:
    """The project of a pipeline file, or the one this folder is in; a folder with a home of its own is one too."""
    from trainflow.settings.project import current_project, find_root, project_at, project_of

    if pipeline is not None:
        return project_of(pipeline)
    here = Path.cwd()
    if find_root(here) is None and (here / ".trainflow").is_dir():
        return project_at(here)
    return current_project(here)


def pipeline_path(name: str, suffixes: tuple[str, ...] = (".yaml", ".yml", ".py")) -> Path:
    """A pipeline as given on the command line: a path, or the name of a file in the project's pipelines folder.

    Raises InputError that names what there is.
    """
    from trainflow.settings.project import find_root

    path = Path(name)
    if path.is_file():
        return path.resolve()
    root = find_root(Path.cwd())
    folder = (root or Path.cwd()) / "pipelines"
    for suffix in suffixes:
        if (folder / f"{name}{suffix}").is_file():
            return (folder / f"{name}{suffix}").resolve()
    from trainflow.near_names import did_you_mean

    known = sorted(str(file.relative_to(Path.cwd())) for file in _files(folder, suffixes))
    raise InputError(f"there is no pipeline file '{name}'{did_you_mean(name, known)}")


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir() or not folder.is_relative_to(Path.cwd()):
        return []
    return [path for path in folder.iterdir() if path.suffix in suffixes and path.name[0] not in "._"]
