"""Documents and package docstrings name what there is; `python -m tests.documents` prints all that is wrong at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import documents


def test_documents_link_files_headings_and_functions_that_exist() -> None:
    assert documents.wrong() == []


def test_package_docstrings_say_where_to_begin_and_what_breaks_them() -> None:
    assert documents.incomplete() == []


def test_package_docstrings_name_every_module() -> None:
    assert documents.unmentioned() == []


def test_reading_orders_name_modules_that_exist() -> None:
    assert documents.stale() == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[`tick`](../trainflow/scheduler/gone.py)", "no file ../trainflow/scheduler/gone.py"),
        ("[`gone`](../trainflow/errors.py)", "../trainflow/errors.py defines no gone"),
        ("[`TrainflowError`](../trainflow/errors.py) [errors](../trainflow/errors.py)", None),
        ("[there](#a-heading--of-it)\n# A heading + of it", None),
        ("[there](#gone)", "no heading #gone"),
        ("see `scheduler/gone`", "no file or name `scheduler/gone`"),
        ("see `scheduler/loop.gone`", "no file or name `scheduler/loop.gone`"),
        ("see `scheduler/loop`, `scheduler/`, `tests/documents.wrong`, `my/own/folder`", None),
        ("```\n[not a link](gone.py) `scheduler/gone`\n```\n", None),
        ("[outside](https://example.com/gone.py)", None),
    ],
)
def test_wrong_of_text_names_what_is_not_there(
    text: str, expected: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "trainflow").symlink_to(documents.ROOT / "trainflow")
    (tmp_path / "tests").symlink_to(documents.ROOT / "tests")
    (tmp_path / "README.md").touch()
    (tmp_path / "docs" / "page.md").write_text(text)
    monkeypatch.setattr(documents, "ROOT", tmp_path)

    assert documents.wrong() == ([f"docs/page.md: {expected}"] if expected else [])
