"""What the command `trainflow` runs first: it imports the command line."""

from __future__ import annotations

from trainflow.bootstrap import importing


def main() -> None:
    """Run the command line."""
    with importing():
        from trainflow.cli.main import main as command
    command()


if __name__ == "__main__":
    main()
