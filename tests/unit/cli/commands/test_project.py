from __future__ import annotations

import pytest

from trainflow.settings.project import MARKER


def test_documented_keys_and_sources(folder, cli, monkeypatch):
    (folder / MARKER).write_text("[executors.local]\nslots = 2\n[engine]\npoll_seconds = 9\n")
    monkeypatch.setenv("TRAINFLOW__EXECUTORS__LOCAL__SLOTS", "3")
    rows = {row["name"]: row for row in cli("config", "list", "--json").json}
    slots = rows["executors.local.slots"]
    assert set(slots) == {"name", "section", "key", "value", "default", "unit", "source", "meaning"}
    assert (slots["value"], slots["source"], slots["unit"]) == (3, "TRAINFLOW__EXECUTORS__LOCAL__SLOTS", "count")
    poll = rows["engine.poll_seconds"]
    assert (poll["value"], poll["default"], poll["unit"]) == (9.0, 5.0, "seconds")
    assert poll["source"] == str(folder / MARKER)
    assert rows["tracking.enabled"]["source"] == "default"
    assert rows["executors.local.isolation"]["unit"] == "auto | fork | spawn"


def test_config_explain_covers_every_setting(folder, cli):
    rows = cli("config", "list", "--json").json
    silent = [row["name"] for row in rows if not row["meaning"]]
    assert silent in ([], ["tracking.enabled", "logging.level"])


def test_config_show_changed_only_lists_changes(folder, cli):
    (folder / MARKER).write_text("[executors.local]\nslots = 2\n")
    assert [row["name"] for row in cli("config", "list", "--changed", "--json").json] == ["executors.local.slots"]
    assert "every setting has its default" in cli("config", "list", "engine", "--changed").out


def test_config_show_masks_secrets(folder, cli, monkeypatch):
    (folder / MARKER).write_text(
        '[checkpoints]\nstorage_options = {key = "hush"}\n[database]\nurl = "postgresql://me:hush@host/db"\n'
    )
    for arguments in (("list",), ("list", "--json"), ("get", "database.url"), ("get", "checkpoints.storage_options")):
        said = cli("config", *arguments)
        assert said.code == 0
        assert "hush" not in said.out
    assert cli("config", "get", "checkpoints.storage_options", "--json").json["value"] == {"key": "***"}


def test_config_get_prints_value(folder, cli, monkeypatch):
    monkeypatch.setenv("TRAINFLOW__EXECUTORS__LOCAL__SLOTS", "7")
    assert cli("config", "get", "executors.local.slots").out == "7\n"
    said = cli("config", "get", "executors.local.slot")
    assert (said.code, "did you mean 'executors.local.slots'" in said.err) == (2, True)
    assert cli("config", "list", "exekutor").code == 2


class TestLint:
    def test_lint_of_good_settings_passes(self, folder, cli):
        assert cli("config", "lint", "--json").json == {"ok": True, "file": str(folder / MARKER), "problems": []}

    def test_lint_tells_all_problems_at_once(self, folder, cli, monkeypatch):
        (folder / MARKER).write_text(
            '[executors.local]\nslots = 0\n[executor]\nslotz = 1\n[engine]\npoll_seconds = "often"\n[nothing]\n'
        )
        monkeypatch.setenv("TRAINFLOW__EXECUTORS__LOCAL__SLOTS", "many")
        monkeypatch.setenv("TRAINFLOW__TRACKING__URL", "x")
        said = cli("config", "lint", "--json")
        assert said.code == 2
        problems = said.json["problems"]
        expected = [
            "slots",
            "slotz",
            "poll_seconds",
            "[nothing]",
            "TRAINFLOW__EXECUTORS__LOCAL__SLOTS",
            "TRAINFLOW__TRACKING",
        ]
        assert len(problems) == len(expected)
        for part, problem in zip(expected, problems, strict=True):
            assert part in problem

    @pytest.mark.parametrize("text", ["slots = 3\n", "[executor\n"])
    def test_file_that_is_none(self, folder, cli, text):
        (folder / MARKER).write_text(text)
        said = cli("config", "lint")
        assert said.code == 2
        assert str(folder / MARKER) in said.out
