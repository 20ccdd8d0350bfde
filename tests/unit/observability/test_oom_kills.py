"""Which ends the kernel's count of out-of-memory kills explains."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trainflow.clock import ManualClock
from trainflow.observability.oom_kills import WINDOW_SECONDS, OomKills, memory_ran_out, oom_kill_counter

MOMENT = timedelta(seconds=1)
LONG = timedelta(seconds=WINDOW_SECONDS)


class Kernel:
    def __init__(self) -> None:
        self.kills = 3
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.memory = OomKills(self.clock, lambda: self.kills)

    def passes(self, by: timedelta) -> None:
        """Time goes by, and the executor looks every five seconds."""
        for _ in range(max(1, by // timedelta(seconds=5))):
            self.clock.advance(min(by, timedelta(seconds=5)))
            self.memory.look()


def test_explain_kill_that_was_just_counted() -> None:
    kernel = Kernel()
    before = kernel.memory.look()
    kernel.passes(LONG * 4)
    kernel.kills += 1
    assert kernel.memory.explain(before)


def test_explain_kill_that_was_counted_before_end_was_seen() -> None:
    kernel = Kernel()
    before = kernel.memory.look()
    kernel.passes(LONG * 4)
    kernel.kills += 1
    kernel.passes(MOMENT)
    assert kernel.memory.explain(before)


def test_explain_nothing_by_kill_from_before_it_began() -> None:
    kernel = Kernel()
    kernel.kills += 1
    before = kernel.memory.look()
    kernel.passes(MOMENT)
    assert not kernel.memory.explain(before)


def test_explain_nothing_by_kill_that_nobody_had_seen_when_it_began() -> None:
    """The count rose while nothing ran and nothing looked."""
    kernel = Kernel()
    kernel.clock.advance(LONG * 10)
    kernel.kills += 1
    assert not kernel.memory.explain(kernel.memory.look())


def test_explain_nothing_by_kill_of_another_process_long_ago() -> None:
    kernel = Kernel()
    before = kernel.memory.look()
    kernel.kills += 1
    kernel.passes(LONG * 2)
    assert not kernel.memory.explain(before)


def test_explain_one_end_by_one_kill() -> None:
    kernel = Kernel()
    before = kernel.memory.look()
    kernel.kills += 1
    kernel.passes(MOMENT)
    assert kernel.memory.explain(before)
    assert not kernel.memory.explain(before)
    kernel.passes(LONG * 2)
    kernel.kills += 1
    assert kernel.memory.explain(before)
    assert not kernel.memory.explain(kernel.memory.look())


Lay = Callable[[dict[str, str]], tuple[Path, Path]]


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    """Lays out `/sys/fs/cgroup` and `/proc` as a kernel does; their paths."""

    def write(files: dict[str, str]) -> tuple[Path, Path]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "cgroup", tmp_path / "proc"

    return write


EVENTS = "low 0\nhigh 0\nmax 7\noom 9\noom_kill {}\noom_group_kill 0\n"


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        # version 2: its own group, or the root of a container
        ({"proc/self/cgroup": "0::/a/b\n", "cgroup/a/b/memory.events": EVENTS.format(4)}, 4),
        ({"proc/self/cgroup": "0::/\n", "cgroup/memory.events": EVENTS.format(5)}, 5),
        ({"proc/self/cgroup": "0::/seen/by/host\n", "cgroup/memory.events": EVENTS.format(6)}, 6),
        # version 1, alone or beside an empty version 2
        (
            {
                "proc/self/cgroup": "4:memory:/x/y\n1:cpu,cpuacct:/\n0::/\n",
                "cgroup/memory/x/y/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
                "proc/vmstat": "oom_kill 99\n",
            },
            2,
        ),
        # old kernels do not count in a group: the host's count is better than none
        (
            {
                "proc/self/cgroup": "4:memory:/\n",
                "cgroup/memory/memory.oom_control": "under_oom 0\n",
                "proc/vmstat": "nr_free_pages 1\noom_kill 8\n",
            },
            8,
        ),
        ({}, 0),
    ],
)
def test_counter_is_that_of_its_own_group(lay: Lay, files: dict[str, str], kills: int) -> None:
    root, proc = lay(files)
    assert oom_kill_counter(root, proc)() == kills


def test_counter_rises_with_its_file(lay: Lay) -> None:
    files = {"proc/self/cgroup": "0::/a\n", "cgroup/a/memory.events": EVENTS.format(1)}
    count = oom_kill_counter(*lay(files))
    assert count() == 1
    lay({"cgroup/a/memory.events": EVENTS.format(2)})
    assert count() == 2
    (root, _) = lay({})
    (root / "a" / "memory.events").unlink()
    assert count() == 0


def test_counter_of_this_machine_can_be_read() -> None:
    assert oom_kill_counter()() >= 0


@pytest.mark.parametrize(
    ("member", "file", "said", "shown"),
    [
        ("0::/pod", "pod/memory.max", "4294967296\n", " (the limit is 4.29 GB)"),
        ("0::/", "memory.max", "max\n", ""),
        ("5:memory:/pod", "memory/memory.limit_in_bytes", "1000000\n", " (the limit is 1 MB)"),
        ("5:memory:/pod", "memory/pod/memory.limit_in_bytes", "9223372036854771712\n", ""),
    ],
)
def test_memory_ran_out_names_the_limit(tmp_path: Path, member: str, file: str, said: str, shown: str) -> None:
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(f"{member}\n")
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text(said)
    assert memory_ran_out(root, proc) == f"the kernel killed it because memory ran out{shown}"
