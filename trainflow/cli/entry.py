"""What the command `trainflow` runs first: it imports the command line."""

from __future__ import annotations

import sys

from trainflow.bootstrap import importing, said_of_two_builds

#: exit codes of a command that failed and of one that was interrupted; importing where they are told takes as long as
#: all the rest
_FAILED, _INTERRUPTED = 1, 130


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
    except ImportError as error:
        if (said := said_of_two_builds(error)) is None:
            raise
        sys.stderr.write(f"error: {said}\n")
        sys.exit(_FAILED)
    command()


if __name__ == "__main__":
    main()
