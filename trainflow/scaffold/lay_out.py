"""Lay out a new project."""

from __future__ import annotations

from pathlib import Path

from trainflow.errors import ProjectError
from trainflow.identifiers import check_name

_TEMPLATE = Path(__file__).with_name("template")
_SUFFIX = ".tmpl"
_DOTTED = "gitignore"


def lay_out(directory: Path, name: str) -> list[Path]:
    """Write a minimal runnable project called `name` into `directory`, which is made; the files, sorted.

    Raises ProjectError when a file is there already (nothing is written then) or the folder cannot be written,
    InputError for a name that cannot be one.
    """
    check_name(name, "project")
    if directory.exists() and not directory.is_dir():
        raise ProjectError(f"{directory} is a file: a project is laid out in a folder")
    files = {directory / _target(source): source for source in sorted(_TEMPLATE.rglob(f"*{_SUFFIX}"))}
    _refuse_overwriting(directory, [file for file in files if file.exists()])
    written: list[Path] = []
    try:
        for file, source in files.items():
            text = source.read_text(encoding="utf-8").replace("{{name}}", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as opened:
                written.append(file)
                opened.write(text)
    except OSError as error:
        for file in written:
            file.unlink()
        why = f"{error.strerror or error}; name a folder that you may write to"
        raise ProjectError(f"cannot lay out a project in {directory}: {why}") from error
    return sorted(files)


def _target(source: Path) -> Path:
    """Where a file of the template goes, relative to the project."""
    target = source.relative_to(_TEMPLATE).with_suffix("")
    return target.with_name(f".{_DOTTED}") if target.name == _DOTTED else target


def _refuse_overwriting(directory: Path, there: list[Path]) -> None:
    if there:
        names = ", ".join(file.relative_to(directory).as_posix() for file in there)
        raise ProjectError(f"{directory} holds {names} already: name a new folder, nothing is overwritten")
