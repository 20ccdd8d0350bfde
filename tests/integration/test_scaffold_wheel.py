"""The template is data: whether it is in the wheel shows only in a wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_template_ships_in_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".tmpl")}
    template = ROOT / "trainflow" / "scaffold" / "template"
    assert shipped == {file.relative_to(ROOT).as_posix() for file in template.rglob("*") if file.is_file()}
    assert len(shipped) == 6
