"""Which file a person means: a path, the name of a file in the project's pipelines folder, or the id of a DAG.

The database is asked only where a name is no file: which file defines the DAG of that id?
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from trainflow.errors import InputError, ProjectError
from trainflow.workspace.workspace import Workspace, open_workspace


class Selection(NamedTuple):
    """What a person wants to see of a project: the DAGs of a file, the one of an id, or with neither all of them."""

    workspace: Workspace
    path: Path | None = None
    dag_id: str | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing was named: all of the project is meant."""
        return self.path is None and self.dag_id is None


@contextmanager
def open_selection(name: str | None) -> Iterator[Selection]:
    """The DAGs that `name` means, or all of the project this folder is in; no file is read. Raises InputError."""
    if name is None:
        found = Selection(open_workspace())
    else:
        try:
            path, dag_id = locate(name, read=False)
            found = Selection(open_workspace(path), path, dag_id)
        except InputError as unknown:
            # the file of a DAG may be gone while the database remembers the DAG
            try:
                found = Selection(open_workspace(), None, name)
            except ProjectError:
                raise unknown from None
    with found.workspace:
        yield found


def locate(name: str, *, read: bool = True) -> tuple[Path, str | None]:
    """The file that `name` means and, where `name` is the id of a DAG, that id. Raises InputError.

    `read`: a file that mentions the id may be read to see whether it defines it; otherwise its names decide.
    """
    try:
        return pipeline_path(name), None
    except InputError as unknown:
        path = _file_of_dag(name, read=read)
        if path is None:
            raise unknown from None
        return path, name


def _file_of_dag(dag_id: str, *, read: bool) -> Path | None:
    """Find the file that defines a DAG: as the database remembers, or else the first of those that mention it or (to be
    read) may make up its id."""
    try:
        workspace = open_workspace()
    except ProjectError:
        return None
    with workspace:
        remembered = _remembered(dag_id, workspace)
        if remembered is not None:
            return remembered
        files = project_files(workspace)
        mentioning = [path for path in files if dag_id.partition(".")[0] in path.read_text(errors="replace")]
        others = [path for path in files if read and path.suffix == ".py" and path not in mentioning]
        candidates = [*mentioning, *others]
        return next((path for path in candidates if _defines(workspace, path, dag_id, read=read)), None)


def _defines(workspace: Workspace, path: Path, dag_id: str, *, read: bool) -> bool:
    from trainflow.workspace.pipeline_file import dags_named_in, parse

    try:
        if not read or path.suffix != ".py":
            return any(each.dag_id == dag_id for each in dags_named_in(path))
        return any(each.dag_id == dag_id for each in parse(workspace.project, workspace.settings, path, {}).dags)
    except InputError:
        return False


def _remembered(dag_id: str, workspace: Workspace) -> Path | None:
    from trainflow.errors import DagNotFound

    database = workspace.existing_database
    if database is None:
        return None
    from trainflow.metadata.queries import dag_queries

    with database.reading() as connection:
        try:
            path = workspace.project.absolute(dag_queries.get(connection, dag_id).path)
        except DagNotFound:
            return None
    return path if path.is_file() else None


def project_files(workspace: Workspace) -> list[Path]:
    """The pipeline files of a project."""
    from trainflow.dag_processor.files import pipeline_files

    return pipeline_files(workspace.project.root / workspace.settings.dag_processor.folder)


#: of the files that are pipelines
_SUFFIXES = (".yaml", ".yml", ".py")


def pipeline_path(name: str) -> Path:
    """A pipeline as given on the command line: a path, the name of a file in the project's pipelines folder, or the
    name of the pipeline that one file there defines.

    Raises InputError that names what there is.
    """
    from trainflow.settings.project import find_root

    path = Path(name)
    if path.is_file():
        return path.resolve()
    root = find_root(Path.cwd())
    folder = (root or Path.cwd()) / "pipelines"
    for suffix in _SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return (folder / f"{name}{suffix}").resolve()
    named = [file for file in (folder.iterdir() if folder.is_dir() else ()) if _is_named(file, name)]
    if len(named) == 1:
        return named[0].resolve()
    raise InputError(f"there is no pipeline file '{name}'{_instead(name, root, folder, named)}")


def _instead(name: str, root: Path | None, folder: Path, named: list[Path]) -> str:
    """What a person may have meant by a name that is none."""
    from trainflow.identifiers import did_you_mean

    if root is None:
        where = f"{Path.cwd()} is not inside a trainflow project, in which pipelines have names"
        return f", and {where}: change into one, or name a file by its path"
    if named:
        files = " and ".join(sorted(os.path.relpath(file) for file in named))
        return f", and {files} call their pipeline so: name the file"
    return did_you_mean(name, sorted(os.path.relpath(file) for file in _files(folder)))


def _is_named(file: Path, name: str) -> bool:
    """Whether a YAML file says that this is its pipeline's name; it is not read any further."""
    if file.suffix not in (".yaml", ".yml") or file.name[0] in "._" or not file.is_file():
        return False
    line = re.compile(rf"""^pipeline:\s*(["']?){re.escape(name)}\1\s*(#.*)?$""", re.MULTILINE)
    return line.search(file.read_text(encoding="utf-8", errors="replace")) is not None


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.name[0] not in "._"]
