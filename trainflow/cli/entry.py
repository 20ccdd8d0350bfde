"""What the command `trainflow` runs first: it imports the command line."""

from __future__ import annotations

import sys

from trainflow.bootstrap import importing

#: exit code of a command that was interrupted; importing where the others are told takes as long as all the rest
_INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        with importing():
            from trainflow.observability.standard_streams import complete_streams

            complete_streams()
            from trainflow.cli.main import main as command
    except KeyboardInterrupt:
        # Ctrl-C before there is anything to stop
        sys.exit(_INTERRUPTED)
    command()


if __name__ == "__main__":
    main()
