"""Pipeline files that break, hang, change and vanish while an engine looks after them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from tests.support.embedded import Embedded, embedded, quiet
from trainflow.clock import SystemClock
from trainflow.dag_processor.files import EarlyParse, stamp
from trainflow.dag_processor.processor import HOLD_UP_SECONDS, DagProcessor
from trainflow.execution.parse import parse
from trainflow.messages import frames
from trainflow.messages.forkserver import ParseStarted
from trainflow.messages.workload import DagSource, ParseFile, ParseProblem
from trainflow.metadata.queries import dag_queries, status_queries
from trainflow.settings.project import Project

WriteProject = Callable[[dict[str, str]], Project]


def pipeline(returns: object, dag_id: str = "p") -> str:
    return (
        "from trainflow import DAG\n"
        "from trainflow.operators import PythonOperator\n"
        f"with DAG({dag_id!r}):\n"
        f"    PythonOperator(task_id='t', python_callable=lambda: {returns!r})\n"
    )


#: no file but one that hangs takes so many seconds, however busy the machine is
PATIENCE = 60.0


@pytest.fixture
def engine(write_project: WriteProject) -> Iterator[Embedded]:
    settings = quiet(dag_processor={"refresh_seconds": 0.05, "parse_timeout_seconds": PATIENCE})
    project = write_project(
        {"pipelines/p.py": pipeline("first"), "operators/__init__.py": "", "operators/other.py": "VALUE = 1\n"}
    )
    with embedded(project, settings) as engine:
        engine.engine.scan_files()
        yield engine


def write(engine: Embedded, name: str, text: str) -> None:
    (engine.project.root / name).write_text(text)


def problems(engine: Embedded) -> dict[str, Any]:
    with engine.engine.database.reading() as connection:
        return {row.path: row for row in status_queries.problems(connection)}


def dags(engine: Embedded) -> dict[str, Any]:
    with engine.engine.database.reading() as connection:
        return {row.dag_id: row for row in dag_queries.everything(connection)}


def is_reading(processor: DagProcessor, name: str) -> bool:
    """Whether the file of this name is being imported."""
    parsing = processor._parsing
    return parsing is not None and parsing.known.path.name == name and parsing.pid is not None


def test_files_are_found_and_changes_are_seen(engine: Embedded) -> None:
    engine.until(lambda: "p" in dags(engine))
    assert engine.xcoms(engine.execute("p")) == {"t": "first"}
    write(engine, "pipelines/p.py", pipeline("the second"))
    write(engine, "pipelines/q.py", pipeline("q", "q"))
    engine.until(lambda: "q" in dags(engine))
    assert engine.xcoms(engine.execute("p")) == {"t": "the second"}
    assert engine.xcoms(engine.execute("q")) == {"t": "q"}


def test_file_that_breaks_keeps_its_version_and_says_where(engine: Embedded) -> None:
    engine.until(lambda: "p" in dags(engine))
    write(engine, "pipelines/p.py", pipeline("x") + "\n\nraise ValueError('broken')\n")
    engine.until(lambda: problems(engine))
    (problem,) = problems(engine).values()
    assert (problem.path, problem.line) == ("pipelines/p.py", 7)
    assert "ValueError: broken" in problem.message
    assert dags(engine)["p"].version_number == 1
    assert dags(engine)["p"].missing_since is None
    write(engine, "pipelines/p.py", pipeline("mended"))
    engine.until(lambda: not problems(engine))
    assert engine.xcoms(engine.execute("p")) == {"t": "mended"}


def test_files_two_defining_one_dag_do_not_take_turns(engine: Embedded) -> None:
    engine.until(lambda: "p" in dags(engine))
    write(engine, "pipelines/q.py", pipeline("from q"))
    engine.until(lambda: problems(engine))
    (problem,) = problems(engine).values()
    assert problem.path == "pipelines/q.py"
    assert "DAG 'p' is defined in pipelines/p.py already" in problem.message
    # it stays with the first file, also when that changes
    write(engine, "pipelines/p.py", pipeline("the second"))
    assert engine.load() is None
    assert dags(engine)["p"].path == "pipelines/p.py"
    assert engine.xcoms(engine.execute("p")) == {"t": "the second"}
    (engine.project.root / "pipelines/p.py").unlink()
    engine.until(lambda: dags(engine)["p"].path == "pipelines/q.py")
    assert problems(engine) == {}
    assert engine.xcoms(engine.execute("p")) == {"t": "from q"}


def test_dag_may_move_from_one_file_to_another(engine: Embedded) -> None:
    """The file it came from is read first: what it said before does not count."""
    engine.until(lambda: "p" in dags(engine))
    processor = engine.engine.dag_processor
    assert processor is not None
    write(engine, "pipelines/p.py", pipeline("another", "other"))
    write(engine, "pipelines/a.py", pipeline("moved"))
    said = engine.load("pipelines/a.py")
    assert said is None, said
    assert (dags(engine)["p"].path, dags(engine)["other"].path) == ("pipelines/a.py", "pipelines/p.py")
    assert problems(engine) == {}


@pytest.mark.parametrize("broken", ["def f(:\n", "raise RuntimeError('no')\n", "import operators.nothing\n"])
def test_mended_where_it_was_broken(engine: Embedded, broken: str) -> None:
    """The problem lies in a module of the project; the pipeline file itself does not change."""
    engine.until(lambda: "p" in dags(engine))
    write(engine, "operators/other.py", broken)
    write(engine, "pipelines/q.py", "import operators.other\n" + pipeline("q", "q"))
    engine.until(lambda: problems(engine))
    write(engine, "operators/other.py", "VALUE = 22\n")
    engine.until(lambda: "q" in dags(engine))
    assert problems(engine) == {}


def test_file_that_hangs_is_given_up_while_others_are_read(engine: Embedded) -> None:
    engine.until(lambda: "p" in dags(engine))
    write(engine, "pipelines/a_hangs.py", "import time\nwhile True: time.sleep(60)\n")
    write(engine, "pipelines/q.py", pipeline("q", "q"))
    processor = engine.engine.dag_processor
    assert processor is not None
    engine.until(lambda: is_reading(processor, "a_hangs.py"), "the file that hangs to be read")
    engine.advance(timedelta(seconds=HOLD_UP_SECONDS))
    engine.until(lambda: "q" in dags(engine) and is_reading(processor, "a_hangs.py"))
    engine.advance(timedelta(seconds=PATIENCE))
    engine.until(lambda: problems(engine))
    (problem,) = problems(engine).values()
    assert f"importing it took longer than {PATIENCE:g} s" in problem.message
    # it is not tried again and again: that would keep the others waiting
    hangs, other = engine.project.root / "pipelines/a_hangs.py", engine.project.root / "pipelines/q.py"
    before = len(engine.parsed[hangs])
    for number in range(1, 4):
        write(engine, "pipelines/q.py", pipeline("q" * number * 2, "q"))
        read = len(engine.parsed[other])
        engine.until(lambda read=read: len(engine.parsed[other]) > read)
    assert len(engine.parsed[hangs]) == before
    assert engine.xcoms(engine.execute("p")) == {"t": "first"}


def test_file_that_hangs_is_put_behind_others_once(engine: Embedded) -> None:
    processor, tries = engine.engine.dag_processor, engine.project.root / "tries"
    assert processor is not None
    write(engine, "pipelines/a_hangs.py", f"import time\nopen('{tries}', 'a').write('x')\nwhile True: time.sleep(60)\n")
    for text in ("q", "other"):
        engine.until(lambda: is_reading(processor, "a_hangs.py"), "the file that hangs to be read")
        write(engine, "pipelines/q.py", pipeline(text, "q"))
        engine.until(lambda: processor._queue)
        engine.advance(timedelta(seconds=HOLD_UP_SECONDS))
        engine.until(lambda: "q" in dags(engine) and tries.read_text() == "xx")
    assert is_reading(processor, "a_hangs.py")


def test_file_that_exits_is_given_up(engine: Embedded) -> None:
    engine.until(lambda: "p" in dags(engine))
    write(engine, "pipelines/q.py", "import os\nos._exit(0)\n")
    engine.until(lambda: problems(engine))
    (problem,) = problems(engine).values()
    assert "ended without an answer (exit code 0: something in it calls exit or os._exit)" in problem.message


def test_file_that_is_gone_leaves_its_dags_marked(engine: Embedded) -> None:
    engine.until(lambda: "p" in dags(engine))
    write(engine, "pipelines/q.py", "nonsense\n")
    engine.until(lambda: problems(engine))
    for name in ("p", "q"):
        (engine.project.root / f"pipelines/{name}.py").unlink()
    engine.until(lambda: dags(engine)["p"].missing_since is not None and not problems(engine))


def test_problem_of_file_deleted_before_engine_looks_is_forgotten(write_project: WriteProject) -> None:
    with embedded(write_project({"pipelines/p.py": pipeline("first")}), quiet()) as engine:
        with engine.engine.database.transaction() as connection:
            for path in ("pipelines/p.py", "pipelines/q.py"):
                problem = ParseProblem(f"{path}:1: no", path=path)
                dag_queries.store_problem(connection, path, problem, SystemClock().now())
        engine.engine.scan_files()

        assert "pipelines/q.py" not in problems(engine)


def test_module_that_tasks_import_is_read_anew(engine: Embedded) -> None:
    write(engine, "pipelines/q.py", "import operators.other\n" + pipeline(0, "q").replace("0", "operators.other.VALUE"))
    engine.until(lambda: "q" in dags(engine))
    assert engine.xcoms(engine.execute("q")) == {"t": 1}
    write(engine, "operators/other.py", "VALUE = 1000\n")
    assert engine.xcoms(engine.execute("q")) == {"t": 1000}


@pytest.mark.parametrize("hangs", [False, True], ids=["it answers", "its time is over"])
def test_processor_that_stood_still_stores_nothing_of_what_it_read_before(engine: Embedded, hangs: bool) -> None:
    processor = engine.engine.dag_processor
    assert processor is not None
    engine.until(lambda: "p" in dags(engine))
    waits = f"import pathlib\nwhile not pathlib.Path({str(engine.project.root / 'go')!r}).exists():\n    pass\n"
    write(engine, "pipelines/q.py", waits + pipeline("of before", "q"))
    engine.until(lambda: is_reading(processor, "q.py"))
    write(engine, "pipelines/q.py", pipeline("of now", "q"))
    clock = engine.engine.clock
    processor._clock = SimpleNamespace(now=clock.now, monotonic=lambda: clock.monotonic() + 600.0)
    processor._time_out(processor._parsing, processor._parsing.peer) if hangs else write(engine, "go", "")
    engine.until(lambda: "q" in dags(engine))
    assert dags(engine)["q"].version_number == 1
    assert not problems(engine)
    assert engine.xcoms(engine.execute("q")) == {"t": "of now"}


def test_files_are_read_once_the_host_gives_a_process_again(
    engine: Embedded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gives_nothing = Mock(side_effect=OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    engine.until(lambda: "p" in dags(engine))
    monkeypatch.setattr("trainflow.dag_processor.processor.HOLD_UP_SECONDS", 0.01)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(engine.engine.dag_processor, "_worker", gives_nothing)
        write(engine, "pipelines/q.py", pipeline("q", "q"))
        engine.until(lambda: gives_nothing.call_count > 1)
    engine.until(lambda: "q" in dags(engine))
    assert caplog.text.count("pipeline files are read later: no process can be started: Too many open files") == 1


def test_files_without_forking_are_read(write_project: WriteProject) -> None:
    """The process that reads files is replaced when what it has loaded changes, the settings for one."""
    project = write_project({"pipelines/p.py": pipeline("first")})
    with embedded(project, quiet(executors={"local": {"isolation": "spawn"}})) as engine:
        assert engine.load() is None
        assert engine.xcoms(engine.execute("p")) == {"t": "first"}
        write(engine, "configs/trainflow.toml", "[logging]\nlevel = 'DEBUG'\n")
        write(engine, "pipelines/p.py", pipeline("the second"))
        assert engine.load() is None
        assert engine.xcoms(engine.execute("p")) == {"t": "the second"}


class TestAFileThatWasReadAhead:
    """A process that starts an engine has the first file read before the engine is there."""

    @staticmethod
    def _ahead(engine: Embedded, overrides: dict[str, str] | None = None) -> tuple[EarlyParse, socket.socket]:
        answer, theirs = socket.socketpair()
        source = DagSource("pipelines/p.py", overrides or {})
        return EarlyParse(source, answer, stamp(engine.project.root / "pipelines/p.py")), theirs

    @staticmethod
    def _answered(line: socket.socket, engine: Embedded) -> None:
        """An engine has read `p.py` when it described a DAG 'ahead'."""
        path = engine.project.root / "ahead.py"
        path.write_text(pipeline("ahead", "ahead"))
        result = parse(ParseFile(DagSource("ahead.py"), str(engine.project.root), str(engine.project.home.path)))
        frames.send(line, msgspec.json.encode(ParseStarted(1)))
        frames.send(line, msgspec.json.encode(msgspec.structs.replace(result, modules=[])))

    def _add(self, engine: Embedded, ahead: EarlyParse) -> None:
        path = engine.project.root / "pipelines/p.py"
        assert engine.engine.dag_processor is not None
        before = len(engine.parsed.get(path, []))
        engine.engine.dag_processor.add(path, None, ahead)
        engine.until(lambda: len(engine.parsed.get(path, [])) > before)

    @pytest.fixture
    def engine(self, write_project: WriteProject) -> Iterator[Embedded]:
        with embedded(write_project({"pipelines/p.py": pipeline("first")}), quiet()) as engine:
            yield engine

    def test_read_ahead_file_unchanged_is_not_read_again(self, engine: Embedded) -> None:
        ahead, line = self._ahead(engine)
        with line:
            self._answered(line, engine)
            self._add(engine, ahead)
        assert set(dags(engine)) == {"ahead"}

    def test_read_ahead_file_without_answer_is_read(self, engine: Embedded) -> None:
        ahead, line = self._ahead(engine)
        line.close()
        self._add(engine, ahead)
        assert set(dags(engine)) == {"p"}

    def test_read_ahead_file_in_another_way_is_read(self, engine: Embedded) -> None:
        ahead, line = self._ahead(engine, {"params.x": "1"})
        with line:
            self._answered(line, engine)
            self._add(engine, ahead)
        assert set(dags(engine)) == {"p"}


def test_file_whose_reader_is_killed_repeatedly_is_read(engine: Embedded) -> None:
    engine.until(lambda: "p" in dags(engine))
    killed_so_often = """
import os, pathlib, signal
tries = pathlib.Path(__file__).with_suffix(".tries")
count = len(tries.read_text()) if tries.exists() else 0
tries.write_text("x" * (count + 1))
if count < 6:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    write(engine, "pipelines/q.py", killed_so_often + pipeline("q", "q"))
    engine.until(lambda: "q" in dags(engine))
    assert problems(engine) == {}


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_modules_of_project_hide_none_of_those_that_trainflow_needs(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    """The project's root comes last on the path, also in the folder in which people type `trainflow start`."""
    names = ["yaml", "msgspec", "json", "logging", "types", "token"]
    hidden = {f"{name}.py": "raise RuntimeError('the wrong module')\n" for name in names}
    waits = (
        "from trainflow import BaseOperator, DAG\n"
        "from trainflow.operators.triggers.time import TimeDeltaTrigger\n"
        "class Waits(BaseOperator):\n"
        "    def execute(self, context):\n"
        "        self.defer(trigger=TimeDeltaTrigger(0.0), method_name='came')\n"
        "    def came(self, context, event):\n"
        "        return 'came'\n"
        "with DAG('p'):\n"
        "    Waits(task_id='t')\n"
    )
    project = write_project({"pipelines/p.py": waits, **hidden})
    monkeypatch.chdir(project.root)
    with embedded(project, quiet(executors={"local": {"isolation": isolation}})) as engine:
        assert engine.load() is None
        assert engine.xcoms(engine.execute("p")) == {"t": "came"}


def parse_result(engine: Embedded, name: str) -> Any:
    """What wrong a file was found to have, when everything was read."""
    engine.until(
        lambda: (engine.project.root / "pipelines" / name).exists() and f"pipelines/{name}" in problems(engine)
    )
    return problems(engine)[f"pipelines/{name}"]


def test_file_giving_what_cannot_be_kept_has_import_problem(engine: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    real = dag_queries.store

    def store(connection: Any, document: Any, *more: Any) -> int:
        if document.dag_id == "bad":
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        return real(connection, document, *more)

    monkeypatch.setattr(dag_queries, "store", store)
    write(engine, "pipelines/bad.py", pipeline(1, "bad"))
    write(engine, "pipelines/good.py", pipeline(1, "good"))
    assert "cannot be kept: OverflowError: Python int too large" in parse_result(engine, "bad.py").message
    engine.until(lambda: "good" in dags(engine))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("raise ValueError('\\ud800\\x00')", "ValueError"),
        ("import sys\nsys.setrecursionlimit(10**6)\nraise RecursionError('deep')", "RecursionError"),
        (pipeline(1, "d").replace("DAG('d')", "DAG('d', dagrun_timeout=10**13)"), "dagrun_timeout"),
        (pipeline(1, "d").replace("DAG('d')", "DAG('d', max_active_runs=2**70)"), "max_active_runs"),
        (pipeline(1, "d").replace("task_id='t'", "task_id='t', pool='a\\x00b'"), "pool"),
        (pipeline(1, "d" * 300), "250 characters"),
    ],
)
def test_file_of_any_content_is_named_and_others_are_read(engine: Embedded, content: str, says: str) -> None:
    write(engine, "pipelines/bad.py", content)
    write(engine, "pipelines/good.py", pipeline(1, "good"))
    assert says in parse_result(engine, "bad.py").message
    engine.until(lambda: "good" in dags(engine))


def test_file_whose_name_is_no_text_is_said_once_and_others_are_read(
    engine: Embedded, caplog: pytest.LogCaptureFixture
) -> None:
    folder = os.fsencode(engine.project.root / "pipelines")
    with open(folder + b"/\xff.py", "w") as file:
        file.write(pipeline(1, "nameless"))
    write(engine, "pipelines/good.py", pipeline(1, "good"))
    engine.until(lambda: "good" in dags(engine))
    engine.engine.dag_processor.scan()  # type: ignore[union-attr]
    assert sum("its name is no UTF-8" in record.message for record in caplog.records) == 1
