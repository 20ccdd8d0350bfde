from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainflow.observability import redacted_output
from trainflow.observability.redacted_output import RedactedOutput, hide_values, without_secrets

TOKEN = "hf_" + "abCD" * 9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def output(file: Path) -> Iterator[RedactedOutput]:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stream = RedactedOutput(descriptor)
    yield stream
    stream.flush()
    stream.detach()
    os.close(descriptor)


def test_print_secret_in_several_pieces_is_masked(output: RedactedOutput, file: Path) -> None:
    print("loss", 0.5, file=output)
    print("password=", "hunter2", sep="", end="", file=output)
    print(" and", TOKEN, file=output)
    assert file.read_text() == "loss 0.5\npassword=*** and ***\n"


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The values that this process hides: none yet."""
    values: set[str] = set()
    monkeypatch.setattr(redacted_output, "_hidden", values)
    return values


def test_print_value_that_is_hidden_is_masked(output: RedactedOutput, file: Path, hidden: set[str]) -> None:
    hide_values(["correct horse", "on"])
    print("it is", "correct horse", "on", file=output)
    assert file.read_text() == "it is *** on\n"
    assert without_secrets("RuntimeError: correct horse") == "RuntimeError: ***"


def test_install_hides_values_of_environment_that_are_named_like_secrets(
    hidden: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "DB_PASSWORD": "staple",
        "PWD": "battery",
        "CREDENTIALS": "/etc/creds",
        "LANGUAGE": "x",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    redacted_output.install()
    assert "staple" in hidden
    assert not hidden & {"battery", "/etc/creds", "x"}


def test_write_ended_line_is_at_once_and_begun_one_after_flush(output: RedactedOutput, file: Path) -> None:
    output.write("one\ntwo")
    assert file.read_text() == "one\n"
    output.flush()
    assert file.read_text() == "one\ntwo"
    output.write("\r50 %\r")
    assert file.read_bytes() == b"one\ntwo\r50 %\r"


def test_write_private_key_by_lines_is_masked_to_end(output: RedactedOutput, file: Path) -> None:
    for line in ("begin", "-----BEGIN PRIVATE " + "KEY-----", "MIIEvQ", "AAECAw==", "-----END PRIVATE KEY-----", "end"):
        print(line, file=output)
    assert "MIIEvQ" not in file.read_text()
    assert "AAECAw" not in file.read_text()
    assert file.read_text().splitlines()[0] == "begin"
    assert file.read_text().splitlines()[-1] == "end"


def test_write_unended_key_does_not_swallow_log(output: RedactedOutput, file: Path) -> None:
    print("-----BEGIN PRIVATE " + "KEY-----", file=output)
    for number in range(4000):
        print(f"line {number}", file=output)
    assert "line 3999" in file.read_text()


def test_write_unencodable_text_never_raises(output: RedactedOutput, file: Path) -> None:
    print("\udcff", file=output)
    assert file.read_text() == "\\udcff\n"


def test_write_unended_line_is_written_when_long(output: RedactedOutput, file: Path) -> None:
    output.write("x" * 100_000)
    assert file.stat().st_size == 100_000


def test_write_to_full_disk_is_dropped_and_raises_nothing() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    stream = RedactedOutput(descriptor)
    print("x" * 100_000, file=stream, flush=True)
    stream.write("no end of a line")
    stream.close()
    os.close(descriptor)


@pytest.mark.parametrize(
    ("disk", "why"),
    # what is at the beginning of a process's memory cannot be written, and says so as a broken disk does
    [("/dev/full", "No space left on device"), ("/proc/self/mem", "Input/output error")],
)
def test_write_after_disk_took_nothing_says_what_is_missing(
    output: RedactedOutput, file: Path, disk: str, why: str
) -> None:
    kept = os.dup(output.fileno())
    full = os.open(disk, os.O_WRONLY)
    print("before", file=output)
    os.dup2(full, output.fileno())
    print("lost", file=output)
    print("lost too", file=output)
    os.dup2(kept, output.fileno())
    print("after", file=output)
    print("later", file=output)
    for descriptor in (kept, full):
        os.close(descriptor)
    missing = f"[14 bytes of this log are missing: {why}]"
    assert file.read_text() == f"before\n\n{missing}\nafter\nlater\n"


def test_write_to_pipe_without_reader_raises() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = RedactedOutput(writer)
    with pytest.raises(BrokenPipeError):
        print("x", file=stream)
    with contextlib.suppress(BrokenPipeError):
        stream.close()
    os.close(writer)
