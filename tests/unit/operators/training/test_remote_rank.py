"""A rank on another host, over a connection: its words, its files, its end; the first one as well as the agent."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainflow.errors import FailException, ProtocolError, TaskError
from trainflow.execution.http_api_client import HttpApiClient
from trainflow.execution.ranks import agent as agents
from trainflow.execution.ranks.agent import RankAgent, RankEnd
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.operators.training.rank_connection import (
    FileBegins,
    FolderEnds,
    Message,
    RankConnection,
    RunRank,
    files_in,
    is_same_folder,
)
from trainflow.operators.training.rank_protocol import failure_of, first_to_fail
from trainflow.operators.training.remote_rank import RemoteRank
from trainflow.operators.training.training_task import TrainingTask

WORKLOAD = ExecuteTask(
    AttemptKey("a"), 1, "d", "r", "t", -1, DagSource("p.py"), "/p", "/p/.trainflow", "/a.log", nodes=3
)


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = socket.create_connection(listener.getsockname())
        return listener.accept()[0], other


class Pair:
    """The first rank's view of one rank, and the agent that runs it."""

    def __init__(
        self,
        folder: Path,
        script: str,
        *,
        saved: Path | None = None,
        parent: Path | None = None,
        of_agent: type[RankConnection] = RankConnection,
    ) -> None:
        self.lines: list[str] = []
        self.prints = threading.Event()
        self.stops = 0
        self.stopping = False
        self.ended: list[RankEnd | None] = []
        self.folder = folder
        self.here = folder / "here"
        for path in (self.here, folder / "there"):
            path.mkdir()
        first, other = connected()
        self.rank = self._rank(RankConnection(first), script, saved, parent)
        # neither the API server nor a first rank is looked for: it has found one
        client: HttpApiClient = None  # type: ignore[assignment]
        self.agent = RankAgent(
            WORKLOAD,
            2,
            folder,
            folder / "there" / "rank",
            client,
            lost_after_seconds=1.0,
            stopping=lambda: self.stopping,
        )
        self.agent._connection = other
        self._thread = threading.Thread(target=lambda: self.ended.append(self.agent._serve(of_agent(other))))
        self._thread.start()

    def _rank(self, link: RankConnection, script: str, saved: Path | None, parent: Path | None) -> RemoteRank:
        places: dict[str, Any] = {
            name: None if path is None else {"path": str(path)} for name, path in (("saved", saved), ("parent", parent))
        }
        names = {name: str(self.here / name) for name in ("metrics", "progress", "saves", "reading", "problem")}
        task = TrainingTask(
            version=1,
            dag_id="d",
            run_id="r",
            task_id="t",
            try_number=1,
            attempt_id="a",
            chain="p/main/main",
            project="/nowhere",
            split={},
            output="/nowhere/output",
            params={},
            seed=1,
            rank=2,
            world_size=3,
            **names,
            **places,
        )
        folders = {name: files_in(path) for name, path in (("saved", saved), ("parent", parent)) if path is not None}
        run = RunRank(task, [sys.executable, "-c", script], {"RANK": "2", "MASTER_ADDR": "10.0.0.1"}, folders)
        return RemoteRank(link, run, self.here / "written", on_line=self._printed, on_stop_asked=self._stop_was_asked)

    def _printed(self, line: str) -> None:
        self.lines.append(line)
        self.prints.set()

    def _stop_was_asked(self) -> None:
        self.stops += 1
        (self.folder / "go").touch()

    def follow(self) -> int:
        self.rank.start()
        return self.rank.follow()

    def close(self) -> None:
        self.rank.close()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(script: str, **words: Any) -> Pair:
        made.append(Pair(tmp_path, script, **words))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_rank_runs_on_its_host_and_all_it_says_and_writes_comes_back(pair: Callable[..., Pair], tmp_path: Path) -> None:
    script = """
import json, os
task = json.load(open(os.environ["TRAINFLOW_TASK"]))
print(os.environ["RANK"], os.environ["MASTER_ADDR"], task["rank"], task["project"] == os.getcwd())
os.makedirs(task["output"] + "/deep")
open(task["output"] + "/deep/part-2", "w").write("x" * 3_000_000)
open(task["output"] + "/empty", "w").close()
open(task["reading"], "a").write('{"batch_size":5,"shuffle":false,"epochs":1,"world_size":3}' + chr(10))
"""
    made = pair(script)
    assert made.follow() == 0
    assert made.lines == ["2 10.0.0.1 2 True"]
    assert (made.here / "reading").read_text().startswith('{"batch_size":5')
    output = tmp_path / "output"
    output.mkdir()
    made.rank.hand_over(output, "rank 2 of 3")
    assert (output / "deep" / "part-2").stat().st_size == 3_000_000
    assert (output / "empty").stat().st_size == 0
    made.close()
    assert made.ended == [RankEnd(True, "rank 2 of 3 has ended: exit code 0")]


@pytest.mark.parametrize("shared", [True, False])
def test_folders_are_read_where_they_are_or_copied(
    pair: Callable[..., Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    if not shared:
        monkeypatch.setattr(agents, "is_same_folder", lambda *_: False)
    for name in ("parent", "saved"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "weights").write_bytes(name.encode() * 700_000)
    script = """
import json, os
task = json.load(open(os.environ["TRAINFLOW_TASK"]))
for name in ("parent", "saved"):
    print(len(open(task[name]["path"] + "/deep/weights").read()), task[name]["path"])
"""
    made = pair(script, parent=tmp_path / "parent", saved=tmp_path / "saved")
    assert made.follow() == 0
    sizes, places = zip(*(line.split() for line in made.lines), strict=True)
    assert sizes == ("4200000", "3500000")
    expected = tmp_path if shared else tmp_path / "there" / "rank"
    assert places == (str(expected / "parent"), str(expected / "saved"))


def test_rank_that_fails_says_why_by_our_clock(pair: Callable[..., Pair]) -> None:
    made = pair("raise SystemExit(7)")
    before = time.monotonic()
    assert made.follow() == 7
    assert made.rank.gone is None
    assert first_to_fail(0, [str(made.here / "problem")]) == 0
    made.close()
    script = """
import json, os, time
task = json.load(open(os.environ["TRAINFLOW_TASK"]))
at = time.monotonic()
open(task["problem"], "w").write(json.dumps({"message": "no", "traceback": "", "kind": "ValueError", "at": at}))
raise SystemExit(1)
"""
    (made.folder / "again").mkdir()
    again = Pair(made.folder / "again", script)
    assert again.follow() == 1
    again.close()
    from trainflow.operators.training.rank_protocol import _problem

    problem = _problem(again.here / "problem")
    assert problem is not None
    assert before < problem.at < time.monotonic()


def test_program_that_cannot_be_started_is_told(pair: Callable[..., Pair]) -> None:
    made = pair("")
    made.rank._run.argv[0] = "/no/such/program"
    assert made.follow() == 1
    assert "No such file or directory" in (made.here / "problem").read_text()


def test_rank_that_is_killed_on_its_host_says_by_what(pair: Callable[..., Pair]) -> None:
    made = pair("import os; os.kill(os.getpid(), 9)")
    assert made.follow() == -signal.SIGKILL
    assert made.rank.gone is None


def test_file_that_cannot_be_written_here_is_told_as_that(pair: Callable[..., Pair]) -> None:
    made = pair('import os; open(os.environ["TRAINFLOW_OUTPUT"] + "/model", "w").write("x")')
    made.rank.written.touch()
    assert made.follow() == -signal.SIGKILL
    assert made.rank.gone is None
    failure = failure_of(2, 0, 3, "", [], retries_mistakes=False, failed_here=made.rank.failed_here)
    assert isinstance(failure, TaskError)
    assert "the files of rank 2 of 3 cannot be dealt with on this host: FileExistsError" in str(failure)
    assert str(made.rank.written) in str(failure)


class OnFullDisk(RankConnection):
    """An end at which no file can be written."""

    def receive_file(self, begins: FileBegins, folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / begins.path))


def test_folder_that_cannot_be_written_on_its_host_is_told_though_more_is_sent(
    pair: Callable[..., Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "is_same_folder", lambda *_: False)
    (tmp_path / "parent").mkdir()
    for number in range(20):
        (tmp_path / "parent" / f"{number}").write_bytes(bytes(1 << 20))
    made = pair("", parent=tmp_path / "parent", of_agent=OnFullDisk)
    assert made.follow() == 1
    assert made.rank.gone is None
    assert "No space left on device" in (made.here / "problem").read_text()
    made.close()
    assert made.ended == [RankEnd(True, "rank 2 of 3 has ended: exit code 1")]


class OfShorterFile(RankConnection):
    """An end whose file becomes shorter when it is announced."""

    def send(self, message: Message) -> None:
        super().send(message)
        if isinstance(message, FileBegins):
            os.truncate(Path(message.name) / message.path, 10)


def test_file_that_becomes_shorter_while_it_is_sent_leaves_the_line_in_step(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"x" * 3_000_000)
    first, other = socket.socketpair()
    said: list[str] = []

    def send() -> None:
        line = OfShorterFile(first)
        try:
            line.send_file(str(tmp_path), tmp_path, "model")
        except OSError as error:
            said.append(str(error))
        line.send(FolderEnds("output"))

    thread = threading.Thread(target=send)
    with first, other:
        thread.start()
        received = RankConnection(other)
        begins = received.receive()
        assert isinstance(begins, FileBegins)
        received.receive_file(begins, tmp_path / "into")
        assert received.receive() == FolderEnds("output")
        thread.join(20)
    assert said == [f"{tmp_path / 'model'} has become shorter while it was sent"]


def test_agent_that_is_gone_is_lost(pair: Callable[..., Pair]) -> None:
    made = pair("import time; print('runs', flush=True); time.sleep(60)")

    def cut() -> None:
        made.prints.wait(20)
        made.agent._connection.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=cut).start()
    assert made.follow() == -signal.SIGKILL
    assert made.rank.gone is not None
    assert "its connection has ended" in made.rank.gone


def test_first_rank_that_hangs_up_ends_program_though_it_ignores_sigterm(pair: Callable[..., Pair]) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('runs', flush=True); time.sleep(60)"
    made = pair(script)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(made.follow()))
    thread.start()
    assert made.prints.wait(20)
    made.rank.terminate()
    made.rank.terminate()
    thread.join(20)
    assert codes == [-signal.SIGKILL]
    assert made.rank.gone is None


def test_host_that_is_wanted_for_something_else_is_told_once_and_rank_goes_on(pair: Callable[..., Pair]) -> None:
    made = pair("import os, time; print('runs', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)")
    thread = threading.Thread(target=made.follow)
    thread.start()
    assert made.prints.wait(20)
    made.stopping = True
    thread.join(20)
    assert made.stops == 1
    assert made.rank.code == 0


@pytest.mark.parametrize(("theirs", "fits"), [("same", True), ("other", False)])
def test_file_that_two_ranks_have_written_has_to_be_the_same(
    pair: Callable[..., Pair], tmp_path: Path, theirs: str, fits: bool
) -> None:
    made = pair('import os; open(os.environ["TRAINFLOW_OUTPUT"] + "/model", "w").write("same")')
    assert made.follow() == 0
    output = tmp_path / "output"
    output.mkdir()
    (output / "model").write_text(theirs)
    if fits:
        made.rank.hand_over(output, "rank 2 of 3")
    else:
        with pytest.raises(FailException, match="rank 2 of 3 has written 'model' into"):
            made.rank.hand_over(output, "rank 2 of 3")
    assert (output / "model").read_text() == theirs


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", ""])
def test_file_out_of_its_folder_is_refused(tmp_path: Path, path: str) -> None:
    first, other = socket.socketpair()
    with first, other, pytest.raises(ProtocolError, match="is no path in a folder"):
        RankConnection(first).receive_file(FileBegins("output", path, 0), tmp_path / "into")
    assert list(tmp_path.iterdir()) == []


def test_folder_is_the_same_by_names_sizes_and_times(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    files = files_in(tmp_path)
    assert is_same_folder(tmp_path, files)
    (tmp_path / "a").write_text("y")
    assert not is_same_folder(tmp_path, files)
    assert not is_same_folder(tmp_path / "missing", files)
