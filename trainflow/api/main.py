"""The process of the API server that an engine starts beside itself: `python -m trainflow.api.main ROOT DESCRIPTOR`."""

from __future__ import annotations

import logging
import os
import socket
import sys
from pathlib import Path

from trainflow.api.server import ApiServer
from trainflow.clock import SystemClock
from trainflow.errors import TrainflowError
from trainflow.observability.logs import configure_logging
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at

log = logging.getLogger(__name__)

#: exit code where something is wrong that a person has to see to
_WRONG_INPUT = 2


def main(root: str, descriptor: str) -> int:
    """Serve a project on a socket that listens, until the engine ends, or says so. Returns the exit code."""
    engine = os.getppid()
    project = project_at(Path(root))
    settings = load_settings(project)
    configure_logging(settings.logging.level, project.home.engine_log)
    try:
        ApiServer(project, settings, SystemClock(), socket.socket(fileno=int(descriptor))).run(parent=engine)
    except TrainflowError as error:
        log.error("the API server cannot go on: %s", error)
        return _WRONG_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
