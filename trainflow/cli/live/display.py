"""Where a pipeline at work is shown: a live panel in a terminal, one line an event where output is no terminal."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from trainflow.cli.live.lines import LineDisplay, run_line

if TYPE_CHECKING:
    from rich.console import Console

    from trainflow.insight.progress.view import ProgressView


class Display(Protocol):
    """Shows views as they come."""

    def show(self, views: list[ProgressView], now: datetime) -> None:
        """Show the views, one a chain, as they are at `now`."""

    def close(self) -> None:
        """Give the terminal back."""


def display(*, interactive: bool | None = None) -> Display:
    """The display that fits where output goes."""
    if not (_can_redraw() if interactive is None else interactive):
        return LineDisplay()
    from rich.console import Console

    # what people write (a problem, a metric's name) may look like markup, and is none
    return Panel(Console(highlight=False, markup=False))


def _can_redraw() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class Panel:
    """Redraws a panel in place."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, views: list[ProgressView], now: datetime) -> None:
        """Print what failed above the panel, and draw it anew."""
        from trainflow.cli.live.panel import panel_of_chain
        from trainflow.cli.live.stages_panel import panel_of_stages

        for view in views:
            for run in view.new_runs:
                if run.state == "failed" or run.failed_beside:
                    self._live.console.print(run_line(run, view), style="red")
        # the terminal writes ^C behind the last line: where that has no room, a line of the panel would stay
        width = self._live.console.width - 2
        panel = panel_of_chain(views[0], now, width) if len(views) == 1 else panel_of_stages(views, now, width)
        self._live.update(panel, refresh=True)

    def close(self) -> None:
        """Take the panel away."""
        self._live.stop()
