"""The port at which attempts on other hosts are answered."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from trainflow.settings import api_address
from trainflow.settings.model import ApiSettings, Settings


@pytest.mark.parametrize(("executors", "warned"), [({"away": {"type": "workload"}}, True), ({}, False)])
def test_port_of_api_server_that_is_taken_is_told_where_attempts_need_it(
    caplog: pytest.LogCaptureFixture, executors: dict[str, dict[str, Any]], warned: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, caplog.at_level("WARNING"):
        port = taken.getsockname()[1]
        assert api_address.listen_for_attempts(Settings(api=ApiSettings(port=port), executors=executors)) is None
        quiet = Settings(api=ApiSettings(enabled=False, port=port), executors=executors)
    told = f"Attempts of 'away' are told http://127.0.0.1:{port}: they wait unless"
    assert (told in caplog.text) is warned
    caplog.clear()
    assert api_address.listen_for_attempts(quiet) is None
    assert not caplog.text
