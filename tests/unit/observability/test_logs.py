from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainflow.observability.logs import UtcFormatter, configure_logging


@pytest.fixture(autouse=True)
def _restore_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)


def test_writes_utc_lines_without_secrets_of_arguments_or_tracebacks(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "engine.log"
    configure_logging("INFO", file)
    log = logging.getLogger("trainflow.test")
    log.debug("not written")
    try:
        raise OSError("cannot reach postgresql://me:geheim@db/x")
    except OSError:
        log.exception("with %s", "s3://id:geheim@host/x")
    text = file.read_text()
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ERROR   trainflow.test\[\d+\]: with s3://id:\*\*\*@", text)
    assert "Traceback" in text
    assert "postgresql://me:***@db/x" in text
    assert "geheim" not in text
    assert "not written" not in text


def test_time_is_utc() -> None:
    record = logging.LogRecord("a", logging.INFO, __file__, 1, "m", None, None)
    record.created, record.msecs = 1356998400.25, 250.0
    assert UtcFormatter().format(record).startswith("2013-01-01T00:00:00.250Z INFO    a[")


def test_configure_twice_replaces_own_handler_only(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = root.handlers[:]
    configure_logging("INFO")
    configure_logging("WARNING", tmp_path / "b.log")
    assert [handler for handler in root.handlers if handler in before] == before
    assert len(root.handlers) == len(before) + 1
    assert root.level == logging.WARNING


def test_warnings_go_to_log(tmp_path: Path) -> None:
    configure_logging("INFO", tmp_path / "a.log")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("something old", DeprecationWarning, stacklevel=1)
    assert "something old" in (tmp_path / "a.log").read_text()


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown level"):
        configure_logging("LOUD")


def test_log_unwritable_is_told_once_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk: a traceback for every line that is lost would bury what matters."""
    handler = configure_logging("INFO", Path("/dev/full"))
    try:
        for number in range(3):
            logging.getLogger("x").warning("line %d", number)
        told = capsys.readouterr().err.splitlines()
        assert told == ["the log /dev/full cannot be written: No space left on device"]
    finally:
        logging.getLogger().removeHandler(handler)
        # what could not be written is still in the stream's buffer
        with contextlib.suppress(OSError):
            handler.close()


def test_format_text_without_encoding_is_written_all_same(tmp_path: Path) -> None:
    file = tmp_path / "engine.log"
    configure_logging("INFO", file)
    logging.getLogger("trainflow.test").error("no such file: %s", "\udcff\ud800")
    assert file.read_text().endswith("no such file: \\udcff\\ud800\n")
