"""Standard streams that are closed, have no reader, or a small alphabet: each in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_COMPLETE = "from trainflow.observability.standard_streams import *\ncomplete_streams()\nimport os, sys\n"
_TOLD = "told = []\noutlive_readers(told.append)\n"
_REPORT = "os.write(report, repr(told).encode())\n"


def run(code: str, *, stdout: int | None = None, close: str = "", **environ: str) -> tuple[int, str, str]:
    """Exit code, what was reported on a pipe, and standard error; `close`: a redirection of the shell."""
    read, write = os.pipe()
    command = ["bash", "-c", f'exec "$0" -c "$1" {close}', sys.executable, f"report = {write}\n{code}"]
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, pass_fds=[write], env={**os.environ, **environ}, check=False
    )
    os.close(write)
    with os.fdopen(read) as reports:
        return done.returncode, reports.read(), done.stderr.decode()


def test_complete_streams_closed_ones_are_no_number_for_a_file() -> None:
    code = _COMPLETE + "print(1)\nnext_one = open(os.devnull).fileno()\n"
    code += "os.write(report, str([next_one > 2, *map(os.get_inheritable, range(3))]).encode())\n"
    assert run(code, close="<&- >&- 2>&-")[:2] == (0, "[True, True, True, True]")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_complete_streams_letters_that_encoding_lacks_are_replaced(encoding: str) -> None:
    read, write = os.pipe()
    assert run(_COMPLETE + "print('1 … 2')\n", stdout=write, PYTHONIOENCODING=encoding) == (0, "", "")
    os.close(write)
    with os.fdopen(read) as printed:
        assert printed.read() == "1 ? 2\n"


def test_outlive_readers_reader_that_ended_ends_nothing_and_is_told_once() -> None:
    read, write = os.pipe()
    os.close(read)
    code, told, errors = run(_COMPLETE + _TOLD + "for _ in range(3): print('x' * 10_000)\n" + _REPORT, stdout=write)
    os.close(write)
    assert (code, errors) == (0, "")
    assert told == "['what is printed is not taken any more, and dropped: Broken pipe']"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_outlive_readers_full_disk_drops_what_is_printed() -> None:
    with open("/dev/full", "w") as full:
        code, told, _ = run(_COMPLETE + _TOLD + "print('x')\n" + _REPORT, stdout=full.fileno())
    assert code == 0
    assert "No space left" in told


def test_outlive_readers_what_is_taken_is_written() -> None:
    code = _COMPLETE + _TOLD + "print('é', file=sys.stderr)\n" + _REPORT
    assert run(code, PYTHONIOENCODING="utf-8") == (0, "[]", "é\n")
