"""What is wrong is said in one message with the right exit code, and once it is mended the same command goes on."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.live_project import LiveProject
from tests.support.tiny_project import FILE, FUNCTIONS, NAME, assert_trained_exactly_once, folder_of, publish

pytestmark = pytest.mark.slow

DAYS = 9  # of the project `tiny`: three splits of three days
CHAIN = "checkpoints/tiny/main/main"


def change(project: LiveProject, old: str, new: str, name: str = FILE) -> None:
    text = (project.root / name).read_text()
    assert old in text
    project.write(name, text.replace(old, new))


def restore(project: LiveProject, original: str, name: str = FILE) -> None:
    project.write(name, original)


@pytest.fixture
def quick(tiny: LiveProject) -> LiveProject:
    """No second tries: what fails has failed."""
    change(tiny, "retry_delay: 0s", "retries: 0")
    return tiny


def goes_on(project: LiveProject) -> None:
    """The next start trains what is left, and leaves nothing behind."""
    ended = project.start(FILE)
    assert ended.code == 0, ended.output
    assert_trained_exactly_once(project, DAYS)
    project.wait_until_quiet()


# -- the pipeline file: exit code 2 --------------------------------------------------------------------------------

WRONG_FILES = {
    "no YAML": ("split: {partitions: 3}", "split: {partitions: 3", r"tiny\.yaml:\d+"),
    "an unknown key": ("{partitions: 3}", "{partitons: 3}", r"tiny\.yaml:\d+:\d+: .*partitons.*partitions"),
    "an unknown function": ("tiny:train", "tiny:trian", r"tiny\.yaml:\d+:\d+: .*no 'trian'.*'train'"),
    "a store that cannot fence": (
        "pipeline: tiny",
        "pipeline: tiny\nstore: https://models.example/store",
        r"tiny\.yaml:2:8: .*https://models\.example/store: https:// cannot create a file only if it is absent",
    ),
    "a store in memory": ("pipeline: tiny", "pipeline: tiny\nstore: memory://s", r"tiny\.yaml:2:8: .*no other sees"),
}


@pytest.mark.exhaustive
def test_pipeline_file_with_mistake_is_wrong_input(quick: LiveProject) -> None:
    original = (quick.root / FILE).read_text()
    for what, (old, new, message) in WRONG_FILES.items():
        change(quick, old, new)
        ended = quick.start(FILE)
        assert re.search(message, ended.output.replace("\n", " ")), f"{what}: {ended.output}"
        assert ended.code == 2, f"{what}: {ended}"
        assert "Traceback" not in ended.output
        restore(quick, original)
    assert quick.committed(NAME) == 0
    quick.wait_until_quiet()
    goes_on(quick)


WRONG_DAGS = {
    "an unknown argument": (
        "from trainflow import DAG\nfrom trainflow.operators import BashOperator\n"
        "with DAG('wrong'):\n    BashOperator(task_id='a', bash_command='true', retires=3)\n",
        r"wrong\.py:4: .*retires.*retries",
    ),
    "an error": ("1 / 0\n", r"wrong\.py:1: ZeroDivisionError"),
    "an exit": ("import os\nos._exit(0)\n", r"wrong\.py: .*ended without an answer"),
}


def test_python_pipeline_with_mistake_is_wrong_input(quick: LiveProject) -> None:
    for what, (text, message) in WRONG_DAGS.items():
        quick.write("pipelines/wrong.py", text)
        ended = quick.start("pipelines/wrong.py")
        assert re.search(message, ended.output), f"{what}: {ended.output}"
        assert ended.code == 2, f"{what}: {ended}"
    quick.wait_until_quiet()


@pytest.mark.exhaustive
def test_pipeline_that_hangs_while_it_is_read(quick: LiveProject) -> None:
    quick.write("pipelines/hangs.py", "from operators.tiny import hold\nhold('reading')\n")
    quick.write("reading", "")
    ended = quick.start("pipelines/hangs.py", environ={"TRAINFLOW__DAG_PROCESSOR__PARSE_TIMEOUT_SECONDS": "0.5"})
    assert ended.code == 2, ended.output
    assert "importing it took longer than 0.5 s" in ended.output
    quick.wait_until_quiet()
    # it is in the same folder, and keeps no pipeline from training
    (quick.root / "reading").unlink()
    goes_on(quick)


def test_arguments_unknown_or_not_settable_are_wrong_input(quick: LiveProject) -> None:
    for arguments, message in [
        (("pipelines/nothing.yaml",), r"nothing\.yaml"),
        ((FILE, "--set", "split.partitions=none"), r"partitions"),
    ]:
        ended = quick.start(*arguments)
        assert (ended.code, bool(re.search(message, ended.output))) == (2, True), ended
    # what was wrong is the command, not the file
    assert "never started" in quick.ask("why", FILE).output
    quick.write("configs/trainflow.toml", "[engine]\nlost_atempts = 3\n")
    ended = quick.start(FILE)
    assert ended.code == 2, ended.output
    assert "lost_attempts" in ended.output


# -- training functions: exit code 1 -------------------------------------------------------------------------------

ENDS = {
    "raises": ("raise ValueError('no such thing')", r"train: ValueError: no such thing"),
    "writes nothing": ("return {}", r"train: .*(wrote nothing|no file|nothing)"),
    "exits with 0": ("os._exit(0)", r"train: .*exit code 0 without reporting an outcome"),
    "exits as Python does": ("raise SystemExit(0)", r"train: .*sys\.exit\(0\)"),
    "kills itself": ("os.kill(os.getpid(), 9)", r"train: lost 3 times in a row, given up: .*SIGKILL"),
}


@pytest.mark.exhaustive
def test_training_that_ends_badly_fails_chain_and_loses_nothing(quick: LiveProject) -> None:
    quick.write("configs/trainflow.toml", "[tracking]\nenabled = false\n[engine]\nlost_attempts = 3\n")
    # the first split is trained well, the second one badly
    bad = "\n\ndef train(ctx):\n    if ctx.parent is None:\n        return good(ctx)\n    {}\n"
    for number, (what, (statement, message)) in enumerate(ENDS.items()):
        quick.write("operators/tiny.py", FUNCTIONS.replace("def train(", "def good(") + bad.format(statement))
        ended = quick.start(FILE)
        assert ended.code == 1, f"{what}: {ended}"
        assert re.search(message, ended.output), f"{what}: {ended.output}"
        assert "checkpoint 1 ·" in ended.output or number > 0
        assert quick.committed(NAME) == 1
    quick.wait_until_quiet()
    quick.write("operators/tiny.py", FUNCTIONS)
    goes_on(quick)


@pytest.mark.exhaustive
def test_training_that_fails_now_and_then_is_tried_again(quick: LiveProject) -> None:
    quick.write(FILE, (quick.root / FILE).read_text().replace("retries: 0", "retries: 1\nretry_delay: 0s"))
    once = "\n\ndef train(ctx):\n    first, made = not ctx.saved, good(ctx)\n    assert not first\n    return made\n"
    quick.write("operators/tiny.py", FUNCTIONS.replace("def train(", "def good(") + once)
    goes_on(quick)


# -- samples: exit code 1 ------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_bad_samples_stop_chain_before_them(quick: LiveProject) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    bad = folder_of(quick, 4) / "part-0.parquet"

    bad.unlink()
    pq.write_table(pa.table({"row": [160]}), bad)
    ended = quick.start(FILE)
    assert ended.code == 1, ended.output
    assert re.search(r"stopped: .*2024-01-05.*'?x'?", ended.output), ended.output
    before = quick.committed(NAME)

    bad.write_bytes(b"PAR1 this is no Parquet file")
    # it may be a file that is still being written: how long that is waited for is said here
    ended = quick.start(FILE, "--set", "samples.ready.unfinished=1s")
    assert ended.code == 1, ended.output
    assert re.search(r"stopped: samples/2024-01-05/part-0\.parquet cannot be read", ended.output), ended.output
    assert quick.committed(NAME) == before

    shutil.rmtree(folder_of(quick, 4))
    ended = quick.start(FILE)
    assert ended.code == 1, ended.output
    assert re.search(r"stopped: .*2024-01-05.*missing", ended.output), ended.output

    publish(quick, 4)
    quick.wait_until_quiet()
    ended = quick.start(FILE)
    assert ended.code == 0, ended.output
    assert quick.audit(NAME).partitions == DAYS
    assert quick.audit(NAME).ok


# -- the checkpoint store ------------------------------------------------------------------------------------------


def trained_in_part(project: LiveProject) -> None:
    """Two of the three splits are committed."""
    hidden = project.root / "hidden"
    folder_of(project, 6).rename(hidden)
    change(project, "end: 2024-01-10", "end: 2024-01-07")
    assert project.start(FILE).code == 0
    change(project, "end: 2024-01-07", "end: 2024-01-10")
    hidden.rename(folder_of(project, 6))
    assert project.committed(NAME) == 2


def test_ledger_or_checkpoint_that_was_tampered_with(quick: LiveProject) -> None:
    trained_in_part(quick)
    head = quick.ledger(NAME).checkpoint()
    first, newest = sorted((quick.root / CHAIN / "ledger").glob("*.json"))
    rows = quick.root / "checkpoints" / head.artifacts.path / "rows.npy"
    contents = {file: file.read_bytes() for file in (first, newest, rows)}
    for file, broken, named in [
        (first, contents[first].replace(b'"loss":', b'"lost":'), first.name),  # every entry is sealed
        (newest, contents[newest][:-20], newest.name),
        (rows, contents[rows][:-1] + bytes([contents[rows][-1] ^ 1]), "rows.npy"),
    ]:
        assert broken != contents[file]
        file.write_bytes(broken)
        # an edited ledger is said at once, whatever retries there are: none of them could get over it
        patient = () if file is rows else ("--set", "retries=3", "--set", "retry_delay=1h")
        ended = quick.start(FILE, *patient)
        assert ended.code == 1, ended.output
        assert named in ended.output
        assert not quick.audit(NAME).ok
        file.write_bytes(contents[file])
    assert quick.committed(NAME) == 2
    goes_on(quick)


@pytest.mark.exhaustive
def test_store_that_cannot_be_written_to(quick: LiveProject) -> None:
    (quick.root / "checkpoints").write_text("this is no folder")
    ended = quick.start(FILE)
    assert ended.code == 1, ended.output
    assert re.search(r"cannot .*checkpoints.*a part of the path is a file", ended.output), ended.output
    (quick.root / "checkpoints").unlink()
    goes_on(quick)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a small tmpfs; skipped where that is not allowed."""
    mounted: list[Path] = []

    def mount_here(name: str, options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
        mounted.append(folder)
        return folder

    if shutil.which("mount") is None:
        pytest.skip("no mount command here")
    yield mount_here
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_store_that_is_full_and_then_read_only(quick: LiveProject, mount: Callable[..., Path]) -> None:
    store = mount("store", "size=256k")
    (quick.root / "checkpoints").symlink_to(store)
    trained_in_part(quick)

    filler = store / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    ended = quick.start(FILE)
    assert ended.code == 1, ended.output
    assert "No space left" in ended.output
    filler.unlink()

    remount(store, "ro")
    ended = quick.start(FILE)
    assert ended.code == 1, ended.output
    assert "Read-only file system" in ended.output
    remount(store, "rw")

    assert quick.committed(NAME) == 2
    assert quick.audit(NAME).ok
    goes_on(quick)


def test_home_on_full_disk_says_so(quick: LiveProject, mount: Callable[..., Path]) -> None:
    home = mount("home", "size=64k")
    ended = quick.start(FILE, environ={"TRAINFLOW_HOME": str(home)})
    assert ended.code == 1, ended.output
    assert re.search("(?i)no space|full", ended.output), ended.output
    quick.wait_until_quiet()
    goes_on(quick)
    assert os.listdir(home)


def test_store_in_settings_that_cannot_fence(quick: LiveProject) -> None:
    restore(quick, (quick.root / FILE).read_text().replace("retries: 0", "retries: 3\nretry_delay: 1h"))
    ended = quick.start(FILE, environ={"TRAINFLOW__CHECKPOINTS__STORE": "ftp://models.example/store"})
    assert ended.code == 2, ended.output
    assert "ftp:// cannot create a file only if it is absent" in ended.output
