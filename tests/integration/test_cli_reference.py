"""Every listing prints the keys that its help documents: what a program reads is held by a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from tests.json_keys import Keys, differences, documented
from tests.reference import FILE as REFERENCE
from tests.reference import commands_of, reference
from tests.support.live_project import LiveProject
from tests.support.tiny_project import FILE, NAME, tiny_project
from trainflow.cli import main
from trainflow.execution.parse_main import parse_file
from trainflow.messages.workload import ParseFile

#: in this order: the later ones change what the earlier ones show. {day}: a partition that was trained
COMMANDS = {
    "status": "",
    "why": "",
    "plan": NAME,
    "audit": NAME,
    "repair": f"{NAME} --dry-run",
    "regrid": f"{NAME} --dry-run",
    "checkpoints list": NAME,
    "checkpoints show": NAME,
    "checkpoints path": f"{NAME} 1",
    "checkpoints export": f"{NAME} 1 --to exported",
    "checkpoints verify": f"{NAME} --all",
    "checkpoints ledger": NAME,
    "checkpoints dependents": f"{NAME}",
    "checkpoints promote": f"{NAME} head --alias best",
    "checkpoints prune": f"{NAME} --keep-latest 1 --dry-run",
    "checkpoints sweep": f"{NAME} --grace 0s --dry-run",
    "checkpoints rewind": f"{NAME} --to 1 --dry-run",
    "checkpoints fork": f"{NAME} --branch other --dry-run",
    "checkpoints compare": f"{NAME} 1 2",
    "samples list": NAME,
    "samples show": f"{NAME} 2024-01-01",
    "samples check": f"{NAME} 2024-01-01",
    "dags list": "",
    "dags show": NAME,
    "dags test": FILE,
    "runs list": NAME,
    "runs show": f"{NAME} 2",
    "tasks list": f"{NAME} 1",
    "tasks show": f"{NAME} 1 train",
    "tasks clear": f"{NAME} 3 train",
    "tasks mark": f"{NAME} 3 train --failed --dry-run",
    "runs clear": f"{NAME} 3",
    "runs trigger": NAME,
    "runs cancel": f"{NAME} latest",
    "pools list": "",
    "tokens create": "ci --role operator --expires 90d",
    "tokens list": "",
    "tokens revoke": "ci",
    "fleet": "",
    "fleet drain": f"dag {NAME}",
    "fleet undrain": f"dag {NAME}",
    "config list": "",
    "config get": "executors.local.slots",
    "config lint": "",
    "db check": "",
    "db current": "",
    "db clean": "--older-than 1d --dry-run",
    "dags errors": "",
}


def _parse_here(request: bytes, _path: Path, _seconds: float) -> bytes:
    return msgspec.json.encode(parse_file(msgspec.json.decode(request, type=ParseFile)))


def _help() -> dict[str, str]:
    commands = commands_of(typer.main.get_command(main.application()))
    return {name: command.help for name, command in commands if any(each.name == "as_json" for each in command.params)}


def _documented() -> dict[str, Keys]:
    found: dict[str, Keys] = {}
    texts = _help()
    while texts:
        known = {name: text for name, text in texts.items() if all(f"`{other}`" not in text for other in texts)}
        for name, text in known.items():
            keys = documented(text, found)
            assert keys, f"the help of '{name}' says nothing behind JSON:"
            found[name] = keys
        texts = {name: text for name, text in texts.items() if name not in known}
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> LiveProject:
    project = tiny_project(tmp_path_factory.mktemp("json"), days=4)
    ended = project.start(FILE)
    assert ended.code == 0, ended.output
    return project


def test_reference_every_listing_is_tried() -> None:
    assert set(COMMANDS) == set(_help())


def test_reference_printed_keys_are_documented_keys(
    trained: LiveProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained.root)
    monkeypatch.setattr("trainflow.workspace.pipeline_file._ask", _parse_here)
    found: dict[str, Any] = {}
    documents = _documented()
    for name, arguments in COMMANDS.items():
        if name == "dags errors":
            trained.write("pipelines/broken.py", "1 / 0")
        main.run([*name.split(), *arguments.split(), "--json"])
        said = capsys.readouterr()
        assert said.out, f"{name}: {said.err}"
        found[name] = differences(documents[name], json.loads(said.out))
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_page_of_reference_is_what_program_says() -> None:
    assert REFERENCE.read_text() == reference(), "write it anew: python -m tests.reference"
