"""Run one attempt in a fresh interpreter: for code that must not be forked.

The workload comes in an environment variable, so that nothing has to be mounted or copied beforehand.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import msgspec

from trainflow.execution.attempt_main import prepare, run_attempt
from trainflow.execution.dag_files import DagFiles
from trainflow.execution.leftover_processes import exit_process
from trainflow.messages.workload import WORKLOAD_VARIABLE, ExecuteTask
from trainflow.observability import redacted_output
from trainflow.observability.logs import configure_logging
from trainflow.observability.resource_exhaustion import BROKEN, exit_code_of
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at


def main() -> int:
    """Read the workload and run it. Returns the exit code."""
    redacted_output.install()
    workload = msgspec.json.decode(os.environ.pop(WORKLOAD_VARIABLE), type=ExecuteTask)
    project = project_at(Path(workload.project_root))
    settings = load_settings(project)
    configure_logging(settings.logging.level)
    return run_attempt(workload, project, settings, DagFiles(project), prepare(project, settings))


if __name__ == "__main__":
    code = BROKEN
    try:
        code = main()
    except BaseException as error:
        code = exit_code_of(error, BROKEN)
        traceback.print_exc()
    finally:
        exit_process(code)
