from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from trainflow.checkpoints.ledger.entries import Adoption, ArtifactFile, Author
from trainflow.checkpoints.ledger_changes.import_external import describe, fetch, files_outside_glob, find, problems
from trainflow.checkpoints.ledger_changes.import_spec import Adopt
from trainflow.errors import ArtifactCorrupt, CheckpointNotFound, InputError
from trainflow.samples.spec import Ready

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PATH = "models/{watermark:%Y%m%d}/"


def put(root: Path, day: str, *names: str) -> Path:
    folder = root / "models" / day
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of {day}")
    return folder


def day(number: int) -> datetime:
    return datetime(2024, 1, number, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "folders", "watermark"),
    [
        (PATH, ["20240103", "20240105", "20240104"], day(5)),
        ("models/v{watermark:%d.%m.%Y}", ["v03.02.2024", "v05.01.2024"], datetime(2024, 2, 3, tzinfo=UTC)),
        ("models/{watermark:%Y}/{watermark:%m}/", ["2023/12", "2024/01"], day(1)),
        ("models/{watermark:%Y-%m-%dT%H%M}", ["2024-01-03T0530"], datetime(2024, 1, 3, 5, 30, tzinfo=UTC)),
        (PATH, ["20240103", "latest", "20249999", "20240104.tmp"], day(3)),
    ],
)
def test_newest_is_found_by_date_in_its_name(
    tmp_path: Path, path: str, folders: list[str], watermark: datetime
) -> None:
    for name in folders:
        put(tmp_path, name, "model.bin")
    assert find(Adopt(path), tmp_path, NOW).watermark == watermark


def test_import_passes_over_unready_folder_unless_named(tmp_path: Path) -> None:
    put(tmp_path, "20240103", "model.bin", "DONE")
    put(tmp_path, "20240104", "model.bin")
    marked = Ready(marker="DONE")
    assert find(Adopt(PATH, ready=marked), tmp_path, NOW).watermark == day(3)
    with pytest.raises(CheckpointNotFound, match="models/20240104 cannot be adopted: it has no DONE"):
        find(Adopt(PATH, watermark=day(4), ready=marked), tmp_path, NOW)
    assert find(Adopt(PATH, watermark=day(3), ready=marked), tmp_path, NOW).folder == "models/20240103"
    with pytest.raises(CheckpointNotFound, match="nothing is there"):
        find(Adopt(PATH, watermark=day(9)), tmp_path, NOW)


def test_import_of_nothing_says_why(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"no checkpoint in models/\{watermark:%Y%m%d\}/ is ready$"):
        find(Adopt(PATH), tmp_path, NOW)
    put(tmp_path, "20240104", "_hidden")
    with pytest.raises(CheckpointNotFound, match="the newest, 2024-01-04T00:00Z: it has no file that matches"):
        find(Adopt(PATH, files="*.bin"), tmp_path, NOW)


def test_folder_that_is_named_by_last_day_trained(tmp_path: Path) -> None:
    put(tmp_path, "20240104", "model.bin")
    assert find(Adopt(PATH, offset_seconds=86_400), tmp_path, NOW).watermark == day(5)
    named = Adopt(PATH, watermark=day(5), offset_seconds=86_400)
    assert find(named, tmp_path, NOW).folder == "models/20240104"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("models/latest/", "adopt.path 'models/latest/' has no time pattern"),
        ("models/{start:%Y%m%d}/", "adopt.path 'models/{start:%Y%m%d}/': write {watermark"),
        ("models/{watermark:%Y}/{when:%m}", "only the watermark goes into the path"),
        ("s3://key:secret@bucket/{watermark:%Y%m%d}", "has credentials in it"),
    ],
)
def test_path_that_cannot_be(path: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Adopt(path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("more", [{"files": "../*"}, {"ready": Ready(marker="../DONE")}])
def test_glob_above_folder_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"adopt\.(files|ready\.marker) '\.\./.*' names nothing in the"):
        Adopt(PATH, **more)


def adoption(root: Path) -> Adoption:
    files = describe(Adopt(PATH), "models/20240104", root)
    return Adoption(sequence=1, previous="", at=NOW, by=Author(), uri="models/20240104", watermark=day(4), files=files)


def test_import_describes_files_of_any_name(tmp_path: Path) -> None:
    names = [".metadata", "__0_0.distcp", "__1_0.distcp", "_SUCCESS", "model.bin", "sub/.index", "sub/_opt/opt.bin"]
    put(tmp_path, "20240104", *names)
    assert adoption(tmp_path).files == [
        ArtifactFile(name, len(text), f"sha256:{hashlib.sha256(text).hexdigest()}")
        for name, text in [(name, f"{name} of 20240104".encode()) for name in sorted(names)]
    ]
    assert files_outside_glob(Adopt(PATH), "models/20240104", tmp_path) == []
    assert files_outside_glob(Adopt(PATH, files="*.distcp"), "models/20240104", tmp_path) == [
        ".metadata", "_SUCCESS", "model.bin", "sub/.index", "sub/_opt/opt.bin",
    ]  # fmt: skip


def test_distributed_checkpoint_without_another_file_is_ready(tmp_path: Path) -> None:
    put(tmp_path, "20240104", ".metadata", "__0_0.distcp")
    assert find(Adopt(PATH), tmp_path, NOW).watermark == day(4)


def test_import_folder_without_named_file_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "20240104", "_SUCCESS")
    with pytest.raises(CheckpointNotFound, match=r"no file that matches \*\.bin"):
        find(Adopt(PATH, files="*.bin", ready=Ready(marker="_SUCCESS", unfinished_seconds=0)), tmp_path, NOW)


def test_shard_that_is_lost_later_is_missing(tmp_path: Path) -> None:
    folder = put(tmp_path, "20240104", ".metadata", "__0_0.distcp")
    adopted = adoption(tmp_path)
    (folder / "__0_0.distcp").unlink()
    assert problems(adopted, {}, tmp_path) == ["models/20240104/__0_0.distcp is missing"]


def test_copy_is_fetched_checked_and_used_again(tmp_path: Path) -> None:
    folder = put(tmp_path, "20240104", "model.bin", "sub/opt.bin")
    adopted = adoption(tmp_path)
    copy = fetch(adopted, {}, tmp_path, tmp_path / "scratch")
    assert (copy / "sub/opt.bin").read_text() == "sub/opt.bin of 20240104"
    (copy / "model.bin").write_text("overwritten since")
    assert fetch(adopted, {}, tmp_path, tmp_path / "scratch") == copy
    assert (copy / "model.bin").read_text() == "model.bin of 20240104"
    os.rename(folder, tmp_path / "gone")
    assert fetch(adopted, {}, tmp_path, tmp_path / "scratch") == copy


def test_import_changed_since_is_no_parent(tmp_path: Path) -> None:
    folder = put(tmp_path, "20240104", "model.bin", "opt.bin")
    adopted = adoption(tmp_path)
    assert problems(adopted, {}, tmp_path) == []
    (folder / "model.bin").write_text("MODEL.bin of 20240104")
    (folder / "opt.bin").unlink()
    found = problems(adopted, {}, tmp_path)
    assert found == [
        "models/20240104/model.bin is not what was adopted",
        "models/20240104/opt.bin is missing",
    ]
    with pytest.raises(ArtifactCorrupt, match="is not what the chain adopted"):
        fetch(adopted, {}, tmp_path, tmp_path / "scratch")
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()] == []
    (folder / "model.bin").unlink()
    assert problems(adopted, {}, tmp_path) is None


def test_import_from_any_file_system_works(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/adopt-test/20240103/model.bin": b"three", "/adopt-test/20240104/model.bin": b"four"})
    adopt = Adopt("memory://adopt-test/{watermark:%Y%m%d}")
    found = find(adopt, None, NOW)
    assert found.watermark == day(4)
    files = describe(adopt, found.folder, None)
    adopted = Adoption(
        sequence=1, previous="", at=NOW, by=Author(), uri=found.folder, watermark=found.watermark, files=files
    )
    assert (fetch(adopted, {}, None, tmp_path) / "model.bin").read_bytes() == b"four"
    assert problems(adopted, {}, None) == []
