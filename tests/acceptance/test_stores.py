"""The life of a chain whose checkpoints are in a store elsewhere: no step of it needs a folder on this machine."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command_line import CommandLine
from tests.support.live_project import WITHOUT_MLFLOW, LiveProject
from tests.support.local_object_stores import LocalS3, StoreServer, settings_of
from tests.support.tiny_project import FILE, NAME, PIPELINE, ROWS_A_DAY, folder_of, publish, tiny_project
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Adoption, Checkpoint, HoleFilled, Rewind
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.upkeep.garbage import attempt_time
from trainflow.settings.project import project_at
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow

DAYS = 4
#: missing at first; the first day is in what is adopted
MISSING = 2


class Remote:
    """A project, and its store."""

    def __init__(self, project: LiveProject, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        self.project = project
        self.store = store
        self._command_line = CommandLine(project_at(project.root), capsys)

    def ledger(self, branch: str = "main") -> Ledger:
        return Ledger(self.store, ChainKey(NAME, "main", branch))

    def rows(self, branch: str = "main") -> list[int]:
        """The rows that the head's weights know."""
        head = self.ledger(branch).checkpoint()
        return [int(row) for row in np.load(io.BytesIO(self.store.read(f"{head.artifacts.path}/rows.npy")))]

    def run(self, *arguments: str) -> str:
        ended = self.project.run(*arguments)
        assert ended.code == 0, ended.output
        return ended.output

    def json(self, *arguments: str) -> Any:
        """What a command says. Those that begin no run are run in this process, which has the store's driver."""
        return self._command_line.json(*arguments)

    def kill_in_the_middle(self, *arguments: str) -> None:
        """kill -9 of everything in the middle of a split, and the home is gone, when what was saved is uploaded."""
        (self.project.root / "hold").touch()
        running = self.project.begin(*arguments)
        held = len([words for words in self.project.journal() if words[0] == "holding"])
        wait_for(
            lambda: len([words for words in self.project.journal() if words[0] == "holding"]) > held,
            lambda: running.output,
        )
        wait_for(self._has_save, lambda: running.output)
        self.project.kill_everything()
        (self.project.root / "hold").unlink()
        shutil.rmtree(self.project.home.path)

    def _has_save(self) -> bool:
        return any("/manifest." in file.path for file in self.store.files(f"{NAME}/main/main/partials"))


@pytest.fixture
def remote(
    tmp_path: Path, store_server: StoreServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Remote:
    url, options = store_server.make_url(), store_server.storage_options
    settings = settings_of(f"{url}/store", options)
    life = (
        f'adopt: {{path: "{url}/models/{{watermark:%Y%m%d}}/"}}\n'
        "promote: {alias: champion}\n"
        "retention: {keep_latest: 3}\n"
    )
    pipeline = PIPELINE.replace("  checks:", "  gaps: {then: skip}\n  republished: replay\n  checks:")
    pipeline = pipeline.replace("split: {partitions: 3}", "split: {partitions: 1}")
    project = tiny_project(tmp_path / "remote", days=DAYS, settings=WITHOUT_MLFLOW + settings, pipeline=pipeline + life)
    shutil.rmtree(folder_of(project, MISSING))
    for name, array in {"rows": np.arange(ROWS_A_DAY), "weight": np.float64(0.5)}.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        open_store(url, storage_options=options).replace(f"models/20240102/{name}.npy", buffer.getvalue())
    monkeypatch.chdir(project.root)
    return Remote(project, open_store(f"{url}/store", storage_options=options), capsys)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:Sending a large body")  # of aiohttp, which drivers give all of a file to
@pytest.mark.parametrize(
    "store_server",
    ["s3", "sftp", "gcs", "azure"],
    indirect=True,
)
def test_chain_in_store_elsewhere_lives_its_life(remote: Remote) -> None:
    project, ledger = remote.project, remote.ledger()
    # killed in the middle, another home: training goes on from the save in the store
    remote.kill_in_the_middle("start", FILE, "--plain")
    assert remote.store.files(f"{NAME}/main/main/partials")
    remote.run("start", FILE, "--plain")
    began = [words for words in project.journal() if words[0] == "begins"]
    assert [words[-1] for words in began[:2]] == ["afresh", "resumes"]
    entries = list(ledger.entries())
    assert isinstance(entries[0], Adoption)
    days = [day for day in range(DAYS) if day != MISSING]
    assert sorted(remote.rows()) == [row for day in days for row in range(day * ROWS_A_DAY, (day + 1) * ROWS_A_DAY)]
    assert remote.store.files(f"{NAME}/main/main/partials") == []
    assert ledger.state().promoted == {"champion": ledger.checkpoint().id}

    # a hole that has arrived
    publish(project, MISSING)
    remote.run("repair", NAME, "--plain")
    assert isinstance(ledger.checkpoint(), HoleFilled)
    assert sorted(remote.rows()) == list(range(DAYS * ROWS_A_DAY))

    # a day that is published again, later than anything that was pruned
    (folder_of(project, DAYS - 1) / "part-1.parquet").write_bytes(
        (folder_of(project, DAYS - 2) / "part-0.parquet").read_bytes()
    )
    remote.run("start", FILE, "--plain")
    [rewound] = [entry for entry in ledger.entries() if isinstance(entry, Rewind)]
    # that went back to before the hole as well: there is none any more
    assert (rewound.cause, len(remote.rows())) == ("replay", (DAYS + 1) * ROWS_A_DAY)
    assert ledger.state().holes == []

    # a branch
    before = ledger.line()[0]
    remote.json("checkpoints", "fork", NAME, "--from", before.id, "--branch", "hot", "--set", "params.rate=2")
    remote.run("start", FILE, "--branch", "hot", "--plain")
    assert remote.ledger("hot").checkpoint().watermark == ledger.checkpoint().watermark
    assert remote.json("checkpoints", "compare", NAME, "main", "hot")["changed"] == []

    # a promotion by hand keeps what retention would not, and so does the branch what it was forked from
    kept = ledger.line()[1]
    assert remote.json("checkpoints", "promote", NAME, kept.id, "--alias", "stable")["promoted"]
    remote.json("checkpoints", "prune", NAME, "--keep-latest", "1")
    assert {each.id for each in ledger.kept()} == {before.id, kept.id, ledger.checkpoint().id}

    # what the killed attempts left
    attempts = {each.by.attempt_id for each in ledger.entries() if isinstance(each, Checkpoint)}
    lost = leave_behind(remote, attempts)
    swept = remote.json("checkpoints", "sweep", NAME, "--grace", "0s")["swept"]
    assert lost in {each["path"].rpartition("/")[2] for each in swept if each["kind"] == "orphan"}
    assert set(remote.store.folders(f"{NAME}/main/main/artifacts")) == {each.id for each in ledger.kept()}
    assert remote.store.temporary("") == []

    assert remote.json("audit", NAME, "--all")["ok"]
    assert remote.json("checkpoints", "verify", NAME, "--all")["ok"]


def leave_behind(remote: Remote, committed: set[str]) -> str:
    """An attempt that uploaded its files and was killed before it could commit."""
    name = "0" * 26
    assert attempt_time(name) is not None
    assert name not in committed
    remote.store.replace(f"{NAME}/main/main/artifacts/{name}/rows.npy", b"half of it")
    return name


def test_start_bucket_that_is_missing_is_told_before_any_run(tmp_path: Path, s3: LocalS3) -> None:
    settings = settings_of("s3://bucket-nowhere/x", s3.storage_options)
    project = tiny_project(tmp_path / "remote", days=1, settings=WITHOUT_MLFLOW + settings)

    ended = project.run("start", FILE, "--plain")

    assert ended.code == 2
    assert "the setting checkpoints.store: s3://bucket-nowhere/x cannot be used: its bucket" in ended.output
    assert json.loads(project.ask("runs", "list", "--json").output) == []
