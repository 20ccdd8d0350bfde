"""The source of the package keeps its measure; `python -m tests.source_tree` prints all that is wrong at once."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from tests import source_tree, versions
from trainflow.metadata.api_models import METADATA
from trainflow.settings.model import Settings

#: a DAG knows its tasks, a task its DAG: only types, and within one package
_LANGUAGE = "trainflow.authoring."


def test_modules_are_read_in_one_sitting() -> None:
    assert source_tree.long_modules() == []


def test_functions_are_short() -> None:
    assert source_tree.long_functions() == []


def test_modules_of_tests_are_read_in_one_sitting() -> None:
    assert source_tree.long_test_modules() == []


def test_unit_tests_follow_modules_that_they_test() -> None:
    assert source_tree.misplaced_tests() == []


def test_modules_import_each_other_in_no_circle() -> None:
    """Nor where the import stands in a function: what cannot be imported at the top has to move down a floor."""
    assert source_tree.circles(source_tree.imports(type_checking=False)) == []


def test_types_go_in_circles_only_in_language_of_dags() -> None:
    found = source_tree.circles(source_tree.imports(type_checking=True))

    assert [group for group in found if not all(name.startswith(_LANGUAGE) for name in group)] == []


def test_actions_and_insight_print_nothing_read_no_clock_and_say_no_sql() -> None:
    assert source_tree.effects_of_people() == []


#: what clients read
_FIELD_OF_ANSWER = re.compile(r"trainflow/(api/rest/\w+|insight/[\w/]+)\.py:\d+: unused variable '[a-z]")


def _unused(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "vulture", "--config", "pyproject.toml", *arguments]
    result = subprocess.run(command, cwd=source_tree.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 3), result.stderr
    return [line for line in result.stdout.splitlines() if not _FIELD_OF_ANSWER.match(line)]


def test_public_functions_classes_and_methods_have_docstrings() -> None:
    assert source_tree.undocumented() == []


def test_each_class_has_a_name_of_its_own() -> None:
    assert source_tree.repeated_classes() == []


def test_module_gives_each_name_once() -> None:
    assert source_tree.names_given_twice() == []


def test_name_that_is_given_twice_is_found() -> None:
    text = "_A, _B = 1, 2\nclass C:\n    _A = 1\ndef f():\n    _A = 1\n_B: int = 3\n"
    module = source_tree.Module("joined", source_tree.ROOT, ast.parse(text), 6)
    assert source_tree.names_given_twice([module]) == ["joined: _B"]


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    assert source_tree.odd_openings() == []


def test_package_has_no_dead_code() -> None:
    """What only tests use is dead; what users and frameworks call is named in `tests/vulture_names.py`."""
    paths = ("trainflow", "operators", "pipelines", "tests/vulture_names.py")

    assert _unused(*paths, "--exclude", "*/migrations/versions/*,*/trainflow/testing/*") == []


@pytest.mark.exhaustive
def test_test_kits_have_no_dead_code() -> None:
    found = _unused("trainflow", "tests")

    kits = ("trainflow/", "tests/support/", "tests/people/", "tests/storm/")
    assert [line for line in found if line.startswith(kits)] == []


def _settings_below(section: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, str]]:
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _settings_below(field.type, f"{path}{field.name}.")
        else:
            yield field.name, f"{path}{field.name}"


def test_settings_are_read_somewhere() -> None:
    """A key that is accepted and ignored would be a promise that is not kept."""
    keys = dict(_settings_below(Settings))

    # these have one meaning together, which the section tells
    told = {"disabled", "traces_endpoint"}
    assert [keys[name] for name in source_tree.never_read(keys, within="trainflow.settings.") if name not in told] == []


def test_columns_of_database_are_read_somewhere() -> None:
    columns = {column.name for table in METADATA.tables.values() for column in table.columns}

    assert source_tree.never_read(columns, within="trainflow.metadata.models") == []


def test_what_no_module_reads_is_found() -> None:
    assert source_tree.never_read(["slots", "slotz"], within="trainflow.settings.") == ["slotz"]


def test_options_of_commands_are_used() -> None:
    assert source_tree.ignored_options() == []


def test_parameter_that_function_does_not_name_is_found() -> None:
    function = ast.parse(
        "def command(path, branch=None, *, detach=False):\n    return str(path) if detach else None"
    ).body[0]

    assert isinstance(function, ast.FunctionDef)
    assert source_tree.unused_parameters(function) == ["branch"]


def test_names_that_vulture_is_told_of_exist() -> None:
    """A name stays in the list no longer than in the source."""
    text = "\n".join(module.path.read_text() for module in source_tree.modules().values())
    for folder in ("operators", "tests/support"):
        text += "".join(path.read_text() for path in (source_tree.ROOT / folder).glob("*.py"))
    lines = (source_tree.ROOT / "tests" / "vulture_names.py").read_text().splitlines()
    names = [line.removeprefix("_.") for line in lines if line.startswith("_.")]

    assert [name for name in names if name not in text] == []


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}}, [["a", "b"]]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}}, [["d", "e"], ["a", "b", "c"]]),
    ],
)
def test_circles_of_graph_are_all_found(graph: dict[str, set[str]], expected: list[list[str]]) -> None:
    assert source_tree.circles(graph) == expected


def test_import_in_function_counts_and_one_for_type_checkers_does_not() -> None:
    graph = source_tree.imports(type_checking=False)

    assert "trainflow.cli.main" in graph["trainflow.cli.entry"]  # in a function
    assert "trainflow.settings.model" not in graph["trainflow.workspace.workspace"]  # under TYPE_CHECKING
    assert "trainflow.settings.model" in source_tree.imports(type_checking=True)["trainflow.workspace.workspace"]


def test_tests_tried_with_other_versions_exist() -> None:
    """They are named by path in a command that the suite does not run, so a move would be noticed late."""
    assert [path for path in versions.TESTS if not (versions.REPOSITORY / path).exists()] == []
