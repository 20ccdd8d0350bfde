"""Try the lowest or the newest versions that pyproject.toml allows: `python -m tests.versions lowest|newest`.

Makes a virtual environment, installs the package with everything that its tests need, lays out a new project, trains
and audits it, and runs the tests that lean most on other packages. Exit code 0: these versions work.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
#: one or two for each package that something depends on
TESTS = (
    "tests/unit/cli/commands/test_project.py",
    "tests/unit/example/test_flight_delay.py",
    "tests/unit/pipeline_spec/test_load.py",
    "tests/unit/samples/rows/test_batches.py",
    "tests/integration/test_executors_kubernetes_credentials.py",
    "tests/integration/test_metadata_fast_path.py",
    "tests/integration/test_metadata_postgres_pipeline.py",
    "tests/integration/test_samples_s3.py",
    "tests/integration/test_storage_obstore.py",
    "tests/integration/test_storage_obstore_files.py",
    "tests/migration",
)


def run(*command: str | Path, cwd: Path) -> None:
    """Run a command, and say which. Raises CalledProcessError."""
    print("+", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    subprocess.run([str(word) for word in command], cwd=cwd, env=environment, check=True)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Try the lowest or the newest versions that pyproject.toml allows.")
    parser.add_argument("which", choices=RESOLUTIONS)
    resolution = RESOLUTIONS[parser.parse_args().which]
    with tempfile.TemporaryDirectory(prefix="trainflow-versions-") as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        programs = folder / "venv" / "bin"
        python = programs / "python"
        try:
            run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv", cwd=REPOSITORY)
            install = (programs / "uv", "pip", "install", "--quiet", "--python", python, "--resolution", resolution)
            run(*install, "--editable", ".[test]", cwd=REPOSITORY)
            run(programs / "uv", "pip", "list", "--python", python, cwd=REPOSITORY)
            run(programs / "trainflow", "init", "project", cwd=folder)
            run(programs / "trainflow", "start", "pipelines/example.yaml", "--plain", cwd=folder / "project")
            run(programs / "trainflow", "audit", "pipelines/example.yaml", cwd=folder / "project")
            # old packages warn of what they do on a newer Python: that is their business
            run(python, "-m", "pytest", "-q", "-n", "2", "-o", "filterwarnings=", *TESTS, cwd=REPOSITORY)
        except subprocess.CalledProcessError as error:
            print(f"{error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
