"""Finding the function that `module:name` names, and what is said when there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainflow.errors import FailException, InputError
from trainflow.operators import function_reference


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    package = tmp_path / "project_ops"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "flights.py").write_text(
        "LIMIT = 3\nclass Model:\n    def train(self): ...\ndef train(ctx): return 1\ndef evaluate(ctx): ...\n"
    )
    (package / "broken.py").write_text("import no_such_library_anywhere\n")
    (package / "raises.py").write_text("raise RuntimeError('at import')\n")
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "project_ops"]:
        del sys.modules[name]


def test_function_is_found_with_root_appended_last(root: Path) -> None:
    function = function_reference.resolve("project_ops.flights:train", root)
    assert function(None) == 1
    assert sys.path[-1] == str(root)
    function_reference.resolve("project_ops.flights:Model.train", root)
    assert sys.path.count(str(root)) == 1


def test_callable_is_taken_as_it_is(root: Path) -> None:
    assert function_reference.resolve(len, root) is len


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("project_ops.flight:train", "no module 'project_ops.flight' in .*project_ops; did you mean 'flights'"),
        ("project_opps.flights:train", "no module 'project_opps' on the path.*did you mean 'project_ops'"),
        ("project_ops.flights.deep:train", "no module 'project_ops.flights.deep': .* is a module, not a package"),
        ("project_ops.flights:trian", r"flights.py\) has no 'trian'; did you mean 'train'"),
        ("project_ops.flights:zzz", "has no 'zzz'; it has: Model, evaluate, train"),
        ("project_ops.flights:LIMIT", "'LIMIT' in .* is a int, not a function"),
        ("project_ops.broken:train", "imports 'no_such_library_anywhere', which is not installed"),
        ("project_ops.flights.train", "write 'module.path:name' .did you mean 'project_ops.flights:train'"),
        ("project_ops/flights.py:train", "write 'module.path:name'"),
        ("", "write 'module.path:name'"),
        (":", "write 'module.path:name'"),
    ],
)
def test_message_says_which_part_is_wrong(root: Path, reference: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        function_reference.resolve(reference, root)
    with pytest.raises(FailException, match=says):
        function_reference.resolve_for_good(reference, root)


def test_function_module_that_raises_is_raised_unchanged(root: Path) -> None:
    with pytest.raises(RuntimeError, match="at import"):
        function_reference.resolve_for_good("project_ops.raises:train", root)


def test_reference_of_callable_names_it() -> None:
    assert (
        function_reference.reference_of(function_reference.resolve) == "trainflow.operators.function_reference:resolve"
    )
    assert function_reference.reference_of("a.b:c") == "a.b:c"
