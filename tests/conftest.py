"""What every test may rely on: no settings of the person who runs it, a clock that moves when told, a throw-away
project."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import hypothesis
import pytest

from tests.support import warm_commands
from tests.support.local_databases import LocalMariaDB, LocalPostgres, LocalServer, local_mariadb, local_postgres
from tests.support.local_object_stores import (
    LocalAzure,
    LocalGCS,
    LocalS3,
    StoreServer,
    local_azure,
    local_gcs,
    local_s3,
)
from tests.support.local_sftp import LocalSFTP, local_sftp, openssh_server
from trainflow.clock import ManualClock
from trainflow.concurrent_map import usable_processors
from trainflow.settings.project import MARKER, Project, project_at

REPOSITORY = Path(__file__).parent.parent
UNIT_TESTS = REPOSITORY / "tests" / "unit"


# a thousand processes are started here: a person who wants no bytecode written would have each of them compile
# everything
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# a script that starts this in its background has it ignore Ctrl-C, `nohup` the end of the terminal, and so all that
# it starts
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

# what is collected stays to the end: there is no garbage to look for while tests are collected, nor, later, among them
gc.disable()

#: where temporary files lie by default: on a disk
DISK = tempfile.gettempdir()
#: all that a run of all tests leaves in its folders at a time, several times over
_ENOUGH_BYTES = 4 * 2**30


def _in_memory() -> Path | None:
    """A folder in memory that is large enough, and where programs may be run; None where there is none."""
    folder = Path("/dev/shm")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return None
    status = os.statvfs(folder)
    enough = status.f_bavail * status.f_frsize >= _ENOUGH_BYTES and not status.f_flag & os.ST_NOEXEC
    return folder if enough else None


# no test outlives the machine: what it writes need not reach a disk. TMPDIR=/tmp pytest: on a disk all the same
if "TMPDIR" not in os.environ and (_memory := _in_memory()) is not None:
    os.environ["TMPDIR"] = tempfile.tempdir = str(_memory)

# the same examples each time, and how long one takes says only how busy the machine is; to look for others:
# --hypothesis-profile=default
hypothesis.settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("steady")

#: a worker takes a few hundred megabytes, and each test with a pipeline as many again
MOST_WORKERS = 8


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--exhaustive", action="store_true", help="also storms of kills, every store, planted bugs")
    parser.addoption("--cold", action="store_true", help="each command in an interpreter of its own, as for a person")


def pytest_configure(config: pytest.Config) -> None:
    warm_commands.enabled = not config.option.cold


def pytest_sessionstart(session: pytest.Session) -> None:
    """Each worker is to import every test module. In a fresh checkout all of them have to be compiled first, for longer
    than anything else takes: each worker begins with a share of its own, and finds the others' done."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not number or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    modules = sorted((REPOSITORY / "tests").rglob("test_*.py"))
    for path in modules[int(number) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]:
        # what is wrong with one is said when it is collected
        with contextlib.suppress(Exception, pytest.skip.Exception):
            import_module(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # each worker collects for itself, and refuses to begin where the names differ
    unsteady = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unsteady:
        raise pytest.UsageError(f"an address in memory is in the name of {unsteady[0]}: give its parameters `ids`")
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.exhaustive:
        # of a module that is named, all is run
        left_out = [item for item in items if item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]
    items[:] = _slow_ones_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
    # a test makes many values at once, and few circles: reading the source of the package takes a third of the time
    gc.set_threshold(50_000, 20, 20)


def _slow_ones_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The tests in the order in which they are shared out: each worker gets as many in a row, and begins with its share
    of the slow ones. What is left at the end, and taken over by a worker that has done its own, takes no time."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = [item for item in items if not item.get_closest_marker("slow")]
    if workers == 1 or not slow:
        return items
    return [
        item
        for worker in range(workers)
        for kind in (slow, others)
        for item in kind[len(kind) * worker // workers : len(kind) * (worker + 1) // workers]
    ]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The whole suite on all processors, and two workers more: most of what is slow waits for other processes. A person
    who names a path or a word wants an answer before workers have begun."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS or config.option.keyword:
        return 0
    processors = usable_processors()
    return min(processors + 2, MOST_WORKERS) if processors > 1 else 0


@pytest.fixture(scope="session")
def made_once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Callable[[str, Callable[[Path], None]], Path]:
    """`made_once(name, make)`: the folder of that name, which the first worker that asks for it has made for all."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made, making = shared / name, shared / f"{name}.{worker_id}"
            if not made.exists():
                making.mkdir()
                make(making)
                making.rename(made)
        return made

    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What a test logs on purpose may have no encoding; a worker of pytest-xdist that cannot send it ends."""
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode("utf-8")) for title, text in report.sections
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """What a test has started ends before its folder goes. A project that several tests share has nothing running
    between them."""
    if (support := sys.modules.get("tests.support.live_project")) is not None:
        support.close_all()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nor from an earlier test: what runs attempts names its home to what it starts, in the environment of its process,
    and in a test that is this one."""
    for name in _variables_of_ours():
        monkeypatch.delenv(name)
    yield
    for name in _variables_of_ours():
        del os.environ[name]


def _variables_of_ours() -> list[str]:
    return [name for name in os.environ if name.startswith("TRAINFLOW") or name == "TRACEPARENT"]


@pytest.fixture(autouse=True)
def _files_are_as_old_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test dates its samples with `os.utime`, and no process can set what the product goes by."""
    monkeypatch.setattr("trainflow.storage.local.written", lambda status: status.st_mtime_ns / 1e9)


@pytest.fixture(autouse=True)
def _no_modules_of_another_project() -> Iterator[None]:
    """Every project calls its code `operators`: what a test imports from a project of its own must not be found by the
    next test instead of this repository's."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    own = str(REPOSITORY / "operators")
    package = sys.modules.get("operators")
    if package is not None and not any(str(each).startswith(own) for each in getattr(package, "__path__", ())):
        for name in [name for name in sys.modules if name.partition(".")[0] == "operators"]:
            del sys.modules[name]


@pytest.fixture(autouse=True)
def _unit_tests_do_not_sleep(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that waits for the clock is slow at best, and flaky at worst. The standard library may: it waits
    for processes that way."""
    if not request.path.is_relative_to(UNIT_TESTS):
        return
    real = time.sleep

    def refuse(seconds: float) -> None:
        if Path(sys._getframe(1).f_code.co_filename).is_relative_to(REPOSITORY):
            raise AssertionError(f"a unit test slept for {seconds:g} s: pass the time in (ManualClock)")
        real(seconds)

    monkeypatch.setattr(time, "sleep", refuse)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


@pytest.fixture
def disk_path() -> Iterator[Path]:
    """As `tmp_path`, on a disk: where inodes are used again, and times are as coarse as the disk keeps them."""
    with tempfile.TemporaryDirectory(dir=DISK, prefix="trainflow-test-") as name:
        yield Path(name)


WriteProject = Callable[[dict[str, str]], Project]


@pytest.fixture
def write_project(tmp_path: Path) -> Iterator[WriteProject]:
    """Lay out a project from {relative path: text}; without settings of its own it has an empty settings file."""
    folder = tmp_path / "project"

    def write(files: dict[str, str]) -> Project:
        for name, text in {MARKER.as_posix(): "", **files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return project_at(folder)

    yield write
    # a socket's path lies outside of the project
    project_at(folder).home.socket_path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[LocalPostgres]:
    """A PostgreSQL server, started when the first test asks for it."""
    with local_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[LocalMariaDB]:
    """A MariaDB server, started when the first test asks for it."""
    with local_mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[LocalS3]:
    """An S3 server, started when the first test asks for it."""
    with local_s3() as server:
        yield server


@pytest.fixture(scope="session")
def gcs() -> Iterator[LocalGCS]:
    """A Google Cloud Storage server, for all tests that ask for it."""
    with local_gcs() as server:
        yield server


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAzure]:
    """An Azure Blob Storage server, for all tests that ask for it."""
    with local_azure(tmp_path_factory.mktemp("azurite") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSFTP]:
    """An SFTP server with OpenSSH's own way with files, for all tests that ask for it."""
    with local_sftp(tmp_path_factory.mktemp("sftp"), openssh_server()) as server:
        yield server


@pytest.fixture(scope="session")
def asyncssh_sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSFTP]:
    """An SFTP server in Python, for all tests that ask for it."""
    with local_sftp(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.fixture
def store_server(request: pytest.FixtureRequest) -> StoreServer:
    """The server of the kind that a test is parametrized with: `indirect=["store_server"]`."""
    found: StoreServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Of each kind of metadata database a clean one; None stands for the one in the home, which is SQLite."""
    server = server_of(request, request.param)
    return None if server is None else server.clean_database()


def server_of(request: pytest.FixtureRequest, kind: str) -> LocalServer | None:
    """The server of a kind of metadata database, started when the first test asks for it; None: SQLite has none."""
    fixtures = {"postgresql": "postgres", "mariadb": "mariadb"}
    return request.getfixturevalue(fixtures[kind]) if kind in fixtures else None
