"""Modules that are imported and not loaded; processes of ours."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

from trainflow.bootstrap import load_when_used


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the standard library that nothing here has loaded."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    load_when_used("colorsys")
    return "colorsys"


def test_module_that_was_imported_is_loaded_once_it_is_asked(unloaded: str) -> None:
    module = import_module(unloaded)
    assert "__file__" not in vars(module)

    assert module.rgb_to_hsv(0.0, 0.0, 0.0) == (0.0, 0.0, 0.0)
    assert sys.modules[unloaded] is not module
    assert sys.modules[unloaded].rgb_to_hsv is module.rgb_to_hsv


def test_module_that_lacks_what_it_is_asked_for_says_so(unloaded: str) -> None:
    with pytest.raises(AttributeError, match="colorsys"):
        _ = import_module(unloaded).nothing


def test_module_that_is_loaded_stays_as_it_is() -> None:
    before = sys.modules["json"]
    load_when_used("json")
    assert sys.modules["json"] is before


def test_module_in_package_is_loaded_by_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    import xml

    monkeypatch.delitem(sys.modules, "xml.sax", raising=False)
    monkeypatch.delattr(xml, "sax", raising=False)
    load_when_used("xml.sax")
    from xml import sax

    assert sax.make_parser is import_module("xml.sax").make_parser
