"""The path given to `trainflow start`: how many files it passes through, and how often it climbs to a higher floor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.command_line import CommandLine
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter
from trainflow.testing.processes import DEADLINE_SECONDS

YAML = """
pipeline: flights
samples: {path: "data/date={start:%Y-%m-%d}/", length: 1d, start: 2013-01-01, end: 2013-01-05}
train: {command: ["true"]}
"""
MOST_FILES = 15
MOST_CLIMBS = 6


def test_path_given_to_start_passes_few_files_and_rarely_climbs(inside: Callable[..., CommandLine]) -> None:
    root = inside(CommandLine, {"pipelines/flights.yaml": YAML}).root
    # all of it is trained: the run finds nothing to do
    ChainWriter(LocalStore(root / "checkpoints"), root / "scratch").commit_many(4)
    here = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": here, "TRAINFLOW__TRACKING__ENABLED": "false"}

    said = subprocess.run(
        [sys.executable, "-m", "tests.tools.trace_path", "pipelines/flights.yaml"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    ).stdout

    found = re.search(r"^(\d+) files, (\d+) climbs$", said, re.MULTILINE)
    assert found is not None, said
    files, climbs = map(int, found.groups())
    assert 5 < files <= MOST_FILES, said
    assert climbs <= MOST_CLIMBS, said
