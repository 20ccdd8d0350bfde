"""What commands send to a terminal: text of users drives it nowhere, into a pipe it goes as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select, update

from tests.integration.cli_home import YAML, Home
from trainflow.metadata.models import AttemptTable, DagRunTable, TaskInstanceTable

#: clears the screen, sets the title, asks for a report that would be typed, hides what follows
EVIL = "\x1b[2J\x1b]0;owned\x07\x1b[6n\x1b[8m\x9b31m\u202e"
DRIVING = ("\x1b[2J", "\x1b]", "\x1b[6n", "\x1b[8m", "\x9b", "\u202e", "\x07")


def on_terminal(*arguments: str, folder: Path) -> str:
    """What a command writes to a terminal, both of its streams."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "trainflow.cli.entry", *arguments]
    process = subprocess.Popen(
        command,
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        cwd=folder,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    process.wait()
    return written.decode()


@pytest.fixture
def home(inside: Callable[..., Home]) -> Home:
    """A run that failed, with notes, problems and a log that drive terminals."""
    home = inside(Home, {"pipelines/days.yaml": YAML})
    home.read()
    run = home.start_run()
    task = home.task(run, "train", "failed", note=f"a note{EVIL}", problem=f"a problem{EVIL}")
    with home.database.transaction() as connection:
        connection.execute(update(DagRunTable.table).values(note=f"of the run{EVIL}"))
        connection.execute(
            AttemptTable.table.insert().values(
                attempt_id="a1",
                task_instance_id=task,
                try_number=1,
                outcome="failed",
                queued_at=connection.execute(select(DagRunTable.table.c.queued_at)).scalar(),
                problem=f"a problem{EVIL}",
                log_name="a.log",
            )
        )
        connection.execute(update(TaskInstanceTable.table).values(attempt_id="a1"))
    home.project.home.logs.mkdir(parents=True, exist_ok=True)
    log = home.project.home.logs / "a.log"
    log.write_bytes(f"\x1b[31mred\nstill{EVIL} red\x1b[0m 10%\r20%\n".encode())
    home.database.close()
    return home


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("tasks", "show", "days", "first", "train"),
        ("tasks", "logs", "days", "first", f"train{EVIL}"),
    ],
)
def test_text_of_users_drives_no_terminal(home: Home, arguments: tuple[str, ...]) -> None:
    shown = on_terminal(*arguments, folder=home.project.root)
    assert [each for each in DRIVING if each in shown] == []
    assert shown.strip()


def test_log_on_a_terminal_has_its_colors_and_elsewhere_is_as_it_is(home: Home) -> None:
    asked = ("tasks", "logs", "days", "first", "train")
    shown = on_terminal(*asked, folder=home.project.root)
    assert shown == "\x1b[31mred\r\nstill\x1b[31m red\x1b[0m 10%\r20%\r\n\x1b[0m"
    command = [sys.executable, "-m", "trainflow.cli.entry", *asked]
    piped = subprocess.run(command, capture_output=True, cwd=home.project.root, check=True)
    assert piped.stdout == (home.project.home.logs / "a.log").read_bytes()


def test_panel_moves_the_cursor_and_its_texts_do_not(tmp_path: Path) -> None:
    code = f"""
from trainflow.observability.standard_streams import complete_streams, outlive_readers
complete_streams()
outlive_readers(print)
from datetime import UTC, datetime
from rich.text import Text
from trainflow.cli.live.panel import display
panel = display(interactive=True)
panel._live.update(Text("before" + {EVIL!r} + "after"), refresh=True)
panel.close()
print("said" + {EVIL!r})
"""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    ):
        os.close(theirs)
        written = b""
        with open(ours, "rb", buffering=0) as terminal:
            try:
                while part := terminal.read(65536):
                    written += part
            except OSError:
                pass
    shown = written.decode()
    assert "beforeafter" in shown
    assert "said" in shown
    assert "\x1b[?25l" in shown  # the panel hides the cursor
    assert [each for each in DRIVING if each in shown] == []
