"""A large checkpoint to a local S3 server and back, beside a bare loop of obstore; and ten runs of which one large file
never changes. `LARGE_GB` (1): gigabytes of the checkpoint; `EMBEDDING_GB` (1): of the file that does not change."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median

import msgspec

from tests.support.plain_s3 import PlainS3, plain_s3
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Artifacts, Author, Checkpoint
from trainflow.storage.urls import open_store
from trainflow.testing.chains import ChainWriter, attempt_id, day, split_of

SHARD = 128 << 20
ROUNDS = 3
CHAIN = ChainKey("large")


def main() -> None:
    """Print the figures."""
    gigabytes = float(os.environ.get("LARGE_GB", "1"))
    with tempfile.TemporaryDirectory(dir=os.environ.get("LARGE_FOLDER")) as folder, plain_s3(Path(folder, "s3")) as s3:
        shards = Path(folder, "shards")
        _write(shards, int(gigabytes * (1 << 30)))
        for what, bare, ours in (("upload", "bare_upload", "upload"), ("download", "bare_download", "download")):
            found = [(_child(s3, shards, bare), _child(s3, shards, ours)) for _ in range(ROUNDS)]
            seconds = [median(each[number][0] for each in found) for number in (0, 1)]
            processor = [median(each[number][2] for each in found) for number in (0, 1)]
            print(
                f"{what} of {gigabytes:g} GiB, shards of {SHARD >> 20} MiB: {gigabytes * 1.074 / seconds[1]:.2f} GB/s, "
                f"bare obstore {gigabytes * 1.074 / seconds[0]:.2f} GB/s: {seconds[0] / seconds[1]:.2f} x; processor "
                f"{processor[1]:.1f} s, bare {processor[0]:.1f} s; memory "
                f"{max(each[1][1] for each in found):.0f} MB, bare {max(each[0][1] for each in found):.0f} MB"
            )
        shutil.rmtree(shards)
        _ten_runs(s3, Path(folder))


def _write(folder: Path, size: int) -> None:
    folder.mkdir()
    random = Random(7)
    for number in range(max(1, size // SHARD)):
        with (folder / f"shard-{number:03d}.bin").open("wb") as file:
            for _ in range(SHARD >> 20):
                file.write(random.randbytes(1 << 20))


def _child(s3: PlainS3, shards: Path, what: str) -> tuple[float, float, float]:
    """Seconds, the most memory in MB and seconds of the processor, of a process that does it."""
    words = [sys.executable, "-m", "tests.benchmarks.large_models", what, s3.endpoint, str(shards)]
    answer = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, memory, processor = answer.split()[-3:]
    return float(seconds), float(memory), float(processor)


def _bare(s3: PlainS3) -> object:
    from obstore.store import S3Store

    return S3Store(
        "bucket",
        endpoint=s3.endpoint,
        access_key_id="a",
        secret_access_key="b",
        region="us-east-1",
        client_options={"allow_http": True},
    )


def bare_upload(s3: PlainS3, shards: Path) -> None:
    """A loop of obstore."""
    import obstore

    store = _bare(s3)
    for path in sorted(shards.iterdir()):
        obstore.put(store, f"bare/{path.name}", path)  # type: ignore[arg-type]


def bare_download(s3: PlainS3, shards: Path) -> None:
    """The same back."""
    import obstore

    store, target = _bare(s3), shards.with_name("bare")
    target.mkdir()
    for path in sorted(shards.iterdir()):
        with (target / path.name).open("wb") as file:
            for chunk in obstore.get(store, f"bare/{path.name}").stream(16 << 20):  # type: ignore[arg-type]
                file.write(chunk)
    shutil.rmtree(target)


def upload(s3: PlainS3, shards: Path) -> None:
    """What the train task does when training has ended."""
    from trainflow.checkpoints.commit.artifacts import seal

    store = open_store("s3://bucket/ours", storage_options=s3.storage_options)
    made = seal(store, CHAIN, attempt_id(1), shards)
    shards.with_name("made.json").write_bytes(msgspec.json.encode(made))


def download(s3: PlainS3, shards: Path) -> None:
    """What a task does that needs the checkpoint and has nothing of it on its machine."""
    from trainflow.checkpoints.verified_artifacts import fetch

    store = open_store("s3://bucket/ours", storage_options=s3.storage_options)
    made = msgspec.json.decode(shards.with_name("made.json").read_bytes(), type=Artifacts)
    target = shards.with_name("ours")
    split = split_of(0)
    head = Checkpoint(
        sequence=1,
        previous="",
        at=day(1),
        by=Author(),
        id=attempt_id(1),
        parent_id=None,
        watermark=split.end,
        split=split,
        artifacts=made,
    )
    fetch(store, head, target)
    shutil.rmtree(target)


def _ten_runs(s3: PlainS3, folder: Path) -> None:
    size = int(float(os.environ.get("EMBEDDING_GB", "1")) * (1 << 30))
    store = open_store("s3://bucket/runs", storage_options=s3.storage_options)
    writer = ChainWriter(store, folder / "scratch")
    embedding, before = Random(1).randbytes(1 << 20) * (size >> 20), 0
    changed = 0
    for number in range(10):
        head = Random(number).randbytes(16 << 20)
        writer.commit(files={"embedding.bin": embedding, "head.bin": head})
        changed += len(head) if number else 0
        if not number:
            before = _taken(s3)
    sent = _taken(s3) - before
    print(
        f"nine more runs with a file of {size >> 20} MiB that does not change: {sent / 1e6:,.0f} MB uploaded, "
        f"{changed / 1e6:,.0f} MB changed: {sent / changed:.3f} x"
    )


def _taken(s3: PlainS3) -> int:
    taken = s3.state()["taken"]
    assert isinstance(taken, int)
    return taken


_CHILDREN: dict[str, Callable[[PlainS3, Path], None]] = {
    each.__name__: each for each in (bare_upload, bare_download, upload, download)
}

if __name__ == "__main__":
    begun = time.perf_counter()
    _CHILDREN[sys.argv[1]](PlainS3(sys.argv[2]), Path(sys.argv[3]))
    took = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{took:.3f} {used.ru_maxrss / 1e3:.0f} {used.ru_utime + used.ru_stime:.2f}")
