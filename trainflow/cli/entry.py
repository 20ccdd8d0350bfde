"""What the command `trainflow` runs first: it imports the command line, and nothing while it does looks for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Inside, garbage is not looked for; afterwards what is there now is never looked through again.

    Modules stay. Looking through them again and again while they are made takes a sixth of the time of importing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def main() -> None:
    """Run the command line."""
    with importing():
        from trainflow.cli.main import main as command
    command()


if __name__ == "__main__":
    main()
