"""Documents and package docstrings name what there is; `python -m tests.documents` prints all that is wrong at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests import documents
from tests.documents import ROOT
from tests.messages import root_command
from trainflow.operators import EvaluateContext, TrainContext
from trainflow.pipeline_spec.load import load_pipeline_file
from trainflow.settings.project import project_at

_PRIVATE = re.compile(r"`(?:_Attempt\.)?(_\w+|raise_\w+)`")
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in documents.documents()}


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


@pytest.mark.parametrize(
    ("page", "block"),
    [
        (page, block)
        for page, text in TEXTS.items()
        for block in documents.blocks(text, "yaml")
        if "\nsamples:" in block and "operators.flight_delay:" in block
    ],
    ids=lambda value: value if value.endswith(".md") else "",
)
def test_pipeline_files_of_documents_are_pipelines_of_this_project(page: str, block: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(block)

    dags = load_pipeline_file(tmp_path / "pipeline.yaml", {}, project_at(ROOT)).dags

    assert [dag.dag_id for dag in dags] == ["flight_delay"]


@pytest.mark.parametrize(("name", "context"), [("train", TrainContext), ("evaluate", EvaluateContext)])
def test_functions_of_documents_use_what_their_context_has(name: str, context: type[Any]) -> None:
    blocks = [block for text in TEXTS.values() for block in documents.blocks(text, "python") if f"def {name}(" in block]
    assert blocks
    for block in blocks:
        compile(block, name, "exec")
        used = set(re.findall(r"ctx\.(\w+)", block))
        known = {*dir(context), *(name for each in context.__mro__ for name in getattr(each, "__annotations__", ()))}
        assert used
        assert used - known == set()


def test_python_of_documents_compiles() -> None:
    for page, text in TEXTS.items():
        for block in documents.blocks(text, "python"):
            compile(block, page, "exec")


def test_commands_of_documents_exist_and_have_their_options() -> None:
    wrong = [
        f"{page}: {command}"
        for page, text in TEXTS.items()
        for command in documents.mentioned_commands(text)
        if command.startswith("trainflow ") and "COMMAND" not in command and not _is_command(command.split()[1:])
    ]

    assert wrong == []


def _is_command(words: list[str]) -> bool:
    command = root_command()
    while hasattr(command, "commands"):
        if command.invoke_without_command and (not words or words[0].startswith("-")):
            break
        if not words or words[0] not in command.commands:
            return bool(words) and words[0] in ("--help", "--version")
        command, words = command.commands[words[0]], words[1:]
    options = {"--help", "-h", *(option for param in command.params for option in param.opts)}
    return {word.partition("=")[0] for word in words if word.startswith("-")} <= options


def test_concepts_name_every_command() -> None:
    section = TEXTS["docs/concepts.md"].partition("## Commands\n")[2].partition("\n## ")[0]
    commands = set(root_command().commands)

    assert commands - set(re.findall(r"`([a-z-]+)`", section)) == set()


def test_tour_is_read_in_a_sitting_and_names_a_function_of_each_file() -> None:
    text = TEXTS["docs/tour.md"]
    stops = re.findall(r"^### \d+\. \[(.+?)\]\((.+?)\)\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    files = [(ROOT / "docs" / target).resolve() for _, target, _ in stops]

    assert 10 <= len(stops) <= 14
    assert sum(path.read_text(encoding="utf-8").count("\n") for path in files) <= 2_550
    assert [title for title, target, said in stops if f"`]({target})" not in said] == []
    looked_at = [(path, name) for path, stop in zip(files, stops, strict=True) for name in _PRIVATE.findall(stop[2])]
    assert looked_at
    assert [name for path, name in looked_at if name not in path.read_text(encoding="utf-8")] == []
