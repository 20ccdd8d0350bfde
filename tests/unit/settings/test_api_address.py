"""The address that a person is told can be opened where it is read."""

from __future__ import annotations

import pytest

from trainflow.settings.api_address import shown_address
from trainflow.settings.model import ApiSettings


@pytest.mark.parametrize(
    ("host", "url", "told"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:8080"),
        ("0.0.0.0", None, "http://localhost:8080, from other hosts http://gpu7:8080 (listens on 0.0.0.0)"),
        ("::", None, "http://localhost:8080, from other hosts http://gpu7:8080 (listens on ::)"),
        ("0.0.0.0", "https://trainflow.example/", "https://trainflow.example"),
    ],
)
def test_shown_address_of_every_interface_names_the_machine(host: str, url: str | None, told: str) -> None:
    assert shown_address(ApiSettings(host=host, url=url), "gpu7") == told
