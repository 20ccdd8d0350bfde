"""The process of an API server that an engine starts beside itself: `python -m trainflow.api.main ROOT PARENT`."""

from __future__ import annotations

import sys
from pathlib import Path

from trainflow.api.server import ApiServer, listen, stopping
from trainflow.bootstrap import freeze_imports
from trainflow.clock import SystemClock
from trainflow.errors import TrainflowError
from trainflow.observability.logs import configure_logging
from trainflow.observability.process_lifetime import watch_parent
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at


def main(root: str, parent: str) -> int:
    """Serve a project until the engine ends, or says so. Returns the exit code."""
    watch_parent(int(parent))
    project = project_at(Path(root))
    settings = load_settings(project)
    configure_logging(settings.logging.level, project.home.engine_log)
    try:
        server = ApiServer(project, settings, SystemClock(), listen(settings.api))
    except TrainflowError as error:
        # the engine reads this line, and tells it
        sys.stderr.write(f"{error}\n")
        return 2
    freeze_imports()
    with stopping(server):
        server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
