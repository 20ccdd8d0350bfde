"""Find the project a file belongs to.

A project is a folder with `configs/trainflow.toml`. A pipeline file outside any project is its own: its folder is the
project, and the home is made there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from trainflow.errors import ProjectError
from trainflow.settings.home import Home

MARKER = Path("configs") / "trainflow.toml"
HOME_VARIABLE = "TRAINFLOW_HOME"


class Project(NamedTuple):
    """A project's root and its home."""

    root: Path
    home: Home

    @property
    def settings_file(self) -> Path:
        """The file of settings, which marks the project."""
        return self.root / MARKER

    def relative(self, path: Path) -> str:
        """`path` as it is written in the database: relative to the root where it lies inside, POSIX separators."""
        resolved = path.resolve()
        try:
            return resolved.relative_to(self.root).as_posix()
        except ValueError:
            return resolved.as_posix()

    def absolute(self, stored: str) -> Path:
        """The inverse of `relative`."""
        return self.root / stored


def find_root(start: Path) -> Path | None:
    """The nearest folder at or above `start` that holds the marker."""
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / MARKER).is_file():
            return folder
    return None


def project_at(root: Path) -> Project:
    """The project whose root is `root`. The home is `.trainflow` there, or `$TRAINFLOW_HOME`."""
    root = root.resolve()
    chosen = os.environ.get(HOME_VARIABLE)
    return Project(root=root, home=Home(Path(chosen).resolve() if chosen else root / ".trainflow"))


def project_of(pipeline_file: Path) -> Project:
    """The project a pipeline file belongs to; its own folder when it lies outside any."""
    resolved = pipeline_file.resolve()
    return project_at(find_root(resolved.parent) or resolved.parent)


def current_project(folder: Path) -> Project:
    """The project at or above `folder`. Raises ProjectError where there is none."""
    root = find_root(folder)
    if root is None:
        raise ProjectError(
            f"{folder} is not inside a trainflow project (no {MARKER.as_posix()} here or above): "
            "change into one, name a pipeline file, or lay one out with 'trainflow init DIR'"
        )
    return project_at(root)
