"""Checkpoints of large files in an object store: killed in the middle of an upload, nothing is lost, double or left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.live_project import LiveProject
from tests.support.plain_s3 import HOLD, PlainS3, plain_s3
from tests.support.tiny_project import FILE, FUNCTIONS, NAME, PIPELINE, tiny_project
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.storage.store import SEAL
from trainflow.storage.urls import open_store
from trainflow.testing.processes import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

DAYS = 3
#: parts of an upload are 8 MiB; one file that never changes, one that always does
LARGE = """\
    if (ROOT / "large").exists():
        (to / "embedding.bin").write_bytes(bytes(9 << 20))
        (to / "shard.bin").write_bytes(str(len(rows)).encode() * (10 << 20))
"""
TRAIN = FUNCTIONS.replace(
    '        np.save(to / "weight.npy", weight)\n',
    '        np.save(to / "weight.npy", weight)\n        large(to, rows)\n',
).replace("def train(ctx):", f"def large(to, rows):\n{LARGE}\n\ndef train(ctx):")


class Large(NamedTuple):
    """A project whose store is on that server."""

    project: LiveProject
    s3: PlainS3
    folder: Path

    @property
    def ledger(self) -> Ledger:
        store = open_store("s3://bucket/store", storage_options=self.s3.storage_options)
        return Ledger(store, ChainKey(NAME))

    def kill_in_an_upload(self) -> None:
        (self.folder / HOLD).write_text("shard.bin")
        running = self.project.begin("start", FILE, "--plain")

        def is_uploading() -> bool:
            assert not running.ended, running.output
            return bool(self.s3.state()["held"])

        wait_for(is_uploading, lambda: running.output)
        self.project.kill_everything()
        (self.folder / HOLD).unlink()

    def start(self) -> None:
        ended = self.project.run("start", FILE, "--plain")
        assert ended.code == 0, ended.output

    def check(self) -> None:
        """The chain is whole, and its folder holds what its checkpoints have and nothing else."""
        for words in (("audit", NAME), ("checkpoints", "verify", NAME, "--all")):
            ended = self.project.ask(*words, "--json")
            assert json.loads(ended.output)["ok"], ended.output
        ledger = self.ledger
        made = [ledger.checkpoint(each.id) for each in ledger.kept()]
        assert [len(each.split.partitions) for each in made] == [1] * DAYS
        places = {each.artifacts.place(file) for each in made for file in each.artifacts.files}
        seals = {f"{each.artifacts.path}{SEAL}" for each in made}
        assert {file.path for file in ledger.store.files(ledger.chain.artifacts)} == places | seals
        assert len([place for place in places if place.endswith("embedding.bin")]) == 1
        assert ledger.store.files(ledger.chain.partials) == []
        assert list(self.project.home.local_saves.iterdir()) == []

    def began(self) -> list[str]:
        return [words[-1] for words in self.project.journal() if words[0] == "begins"]


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Callable[[str], Large]]:
    with plain_s3(tmp_path / "s3") as s3:
        options = "".join(
            f"{name} = {json.dumps(value)}\n"
            for name, value in {"endpoint_url": s3.endpoint, "key": "a", "secret": "b"}.items()
        )
        settings = f'[checkpoints]\nstore = "s3://bucket/store"\n[checkpoints.storage_options]\n{options}'
        pipeline = PIPELINE.replace("partitions: 3", "partitions: 1")
        project = tiny_project(tmp_path / "project", settings=settings, days=DAYS, pipeline=pipeline)

        def made(functions: str) -> Large:
            project.write("operators/tiny.py", functions)
            project.write("large", "")
            return Large(project, s3, tmp_path / "s3")

        yield made


def test_kill_in_the_upload_of_what_was_trained_costs_no_training(large: Callable[[str], Large]) -> None:
    # no save: what is killed is the upload of the checkpoint
    chain = large(TRAIN.replace("ctx.save(batches.position, save, every=0)", "pass"))

    chain.kill_in_an_upload()
    chain.start()

    assert chain.began() == ["afresh"] * DAYS
    chain.check()


def test_kill_in_the_upload_of_a_save_goes_on_from_it_on_this_machine(large: Callable[[str], Large]) -> None:
    chain = large(TRAIN)
    (chain.project.root / "hold").touch()  # after the first save, of the first day

    chain.kill_in_an_upload()
    (chain.project.root / "hold").unlink()
    chain.start()

    assert chain.began()[:2] == ["afresh", "resumes"]
    chain.check()
