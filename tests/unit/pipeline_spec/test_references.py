from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainflow.pipeline_spec.references import check_reference

SOURCE = """
from math import floor as down
import os.path
raise RuntimeError("a check that imports this module ends here")

def train(ctx):
    def inner(): ...

async def later(ctx): ...

class Model:
    def fit(self): ...

if True:
    def sometimes(ctx): ...
else:
    other = sometimes
try:
    pass
except ImportError:
    fallback: int = 3
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "operators_of_test").mkdir()
    (tmp_path / "operators_of_test" / "model.py").write_text(SOURCE)
    (tmp_path / "operators_of_test" / "broken.py").write_text("def train(ctx)\n    pass\n")
    (tmp_path / "operators_of_test" / "star.py").write_text("from os.path import *\n")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["train", "later", "Model", "Model.fit", "sometimes", "other", "fallback", "down", "os"]
)
def test_reference_to_top_level_name_is_found_without_import(project: Path, name: str) -> None:
    check_reference(f"operators_of_test.model:{name}", project)
    assert "operators_of_test" not in sys.modules


def test_star_import_may_define_anything(project: Path) -> None:
    check_reference("operators_of_test.star:join", project)


def test_reference_to_installed_module_is_found(project: Path) -> None:
    check_reference("json.decoder:JSONDecoder", project)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("operators_of_test.model:trian", "operators_of_test/model.py defines no 'trian'; did you mean 'train'?"),
        ("operators_of_test.model:inner", "operators_of_test/model.py defines no 'inner'"),
        (
            "operators_of_test.modle:train",
            "no module 'operators_of_test.modle': there is no 'modle' in operators_of_test; did you mean 'model'?",
        ),
        ("operators_of_tset.model:train", "did you mean 'operators_of_test'?"),
        ("operators_of_test.model.deeper:train", "there is no 'deeper' in operators_of_test.model"),
        ("operators_of_test.broken:other", "operators_of_test/broken.py:1: not valid Python"),
        ("operators_of_test/model.py:train", "write module.path:name: operators_of_test.model:train"),
        ("operators_of_test.model", "names no function; write module.path:name, for example"),
        ("operators_of_test.model:", "names no function"),
    ],
)
def test_reference_to_unknown_name_suggests_nearest(project: Path, reference: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_reference(reference, project)
    assert told in str(caught.value)


def test_reference_into_package_of_another_place_says_where_it_was_found(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    (other / "operators_of_other").mkdir()
    monkeypatch.syspath_prepend(str(other))
    with pytest.raises(ValueError) as caught:
        check_reference("operators_of_other.model:train", project)
    assert f"in operators_of_other, which is {other / 'operators_of_other'} and not of the project ({project})" in str(
        caught.value
    )


@pytest.mark.parametrize("marked", [True, False])
def test_reference_to_unknown_module_says_what_makes_a_project(project: Path, marked: bool) -> None:
    if marked:
        (project / "configs").mkdir()
        (project / "configs" / "trainflow.toml").touch()
    with pytest.raises(ValueError) as caught:
        check_reference("operators_of_nobody.model:train", project)
    told = f"No configs/trainflow.toml, which may be empty, marks a folder at or above {project} as the project"
    assert (told in str(caught.value)) != marked
