"""Pipeline files that break, hang, change and vanish while an engine looks after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trainflow.metadata import dag_queries
from trainflow.settings.project import Project
from trainflow.testing.embedded import Embedded, embedded, quiet

WriteProject = Callable[[dict[str, str]], Project]


def pipeline(returns: object, dag_id: str = "p") -> str:
    return (
        "from trainflow import DAG\n"
        "from trainflow.operators import PythonOperator\n"
        f"with DAG({dag_id!r}):\n"
        f"    PythonOperator(task_id='t', python_callable=lambda: {returns!r})\n"
    )


#: no file but one that hangs takes this long, however busy the machine is
PATIENCE = 60.0


@pytest.fixture
def engine(write_project: WriteProject, request: pytest.FixtureRequest) -> Iterator[Embedded]:
    patience = getattr(request, "param", PATIENCE)
    settings = quiet(dag_processor={"refresh_seconds": 0.05, "parse_timeout_seconds": patience})
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
        return {row.path: row for row in dag_queries.problems(connection)}


def dags(engine: Embedded) -> dict[str, Any]:
    with engine.engine.database.reading() as connection:
        return {row.dag_id: row for row in dag_queries.everything(connection)}


def test_files_are_found_and_changes_are_seen(engine: Embedded) -> None:
    engine.until(lambda: "p" in dags(engine))
    assert engine.xcoms(engine.execute("p")) == {"t": "first"}
    write(engine, "pipelines/p.py", pipeline("the second"))
    write(engine, "pipelines/q.py", pipeline("q", "q"))
    engine.until(lambda: "q" in dags(engine))
    assert engine.xcoms(engine.execute("p")) == {"t": "the second"}
    assert engine.xcoms(engine.execute("q")) == {"t": "q"}


def test_a_file_that_breaks_keeps_its_version_and_says_where(engine: Embedded) -> None:
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


def test_two_files_that_define_one_dag_do_not_take_turns(engine: Embedded) -> None:
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


def test_a_dag_may_move_from_one_file_to_another(engine: Embedded) -> None:
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


@pytest.mark.parametrize("engine", [2.0], indirect=True)
def test_a_file_that_hangs_is_given_up_while_others_are_read(engine: Embedded) -> None:
    engine.until(lambda: "p" in dags(engine))
    write(engine, "pipelines/a_hangs.py", "import time\nwhile True: time.sleep(60)\n")
    write(engine, "pipelines/q.py", pipeline("q", "q"))
    engine.until(lambda: "q" in dags(engine) and problems(engine))
    (problem,) = problems(engine).values()
    assert "importing it took longer than 2 s" in problem.message
    # it is not tried again and again: that would keep the others waiting
    hangs, other = engine.project.root / "pipelines/a_hangs.py", engine.project.root / "pipelines/q.py"
    before = len(engine.parsed[hangs])
    for number in range(1, 4):
        write(engine, "pipelines/q.py", pipeline("q" * number * 2, "q"))
        read = len(engine.parsed[other])
        engine.until(lambda read=read: len(engine.parsed[other]) > read)
    assert len(engine.parsed[hangs]) == before
    assert engine.xcoms(engine.execute("p")) == {"t": "first"}


def test_a_file_that_exits_is_given_up(engine: Embedded) -> None:
    engine.until(lambda: "p" in dags(engine))
    write(engine, "pipelines/q.py", "import os\nos._exit(0)\n")
    engine.until(lambda: problems(engine))
    (problem,) = problems(engine).values()
    assert "crashes or calls exit" in problem.message


def test_a_file_that_is_gone_leaves_its_dags_marked(engine: Embedded) -> None:
    engine.until(lambda: "p" in dags(engine))
    write(engine, "pipelines/q.py", "nonsense\n")
    engine.until(lambda: problems(engine))
    for name in ("p", "q"):
        (engine.project.root / f"pipelines/{name}.py").unlink()
    engine.until(lambda: dags(engine)["p"].missing_since is not None and not problems(engine))


def test_a_module_that_tasks_import_is_read_anew(engine: Embedded) -> None:
    write(engine, "pipelines/q.py", "import operators.other\n" + pipeline(0, "q").replace("0", "operators.other.VALUE"))
    engine.until(lambda: "q" in dags(engine))
    assert engine.xcoms(engine.execute("q")) == {"t": 1}
    write(engine, "operators/other.py", "VALUE = 1000\n")
    assert engine.xcoms(engine.execute("q")) == {"t": 1000}


def test_without_forking(write_project: WriteProject) -> None:
    """The process that reads files is replaced when what it has loaded changes, the settings for one."""
    project = write_project({"pipelines/p.py": pipeline("first")})
    with embedded(project, quiet(executor={"isolation": "spawn"})) as engine:
        assert engine.load() is None
        assert engine.xcoms(engine.execute("p")) == {"t": "first"}
        write(engine, "configs/trainflow.toml", "[logging]\nlevel = 'DEBUG'\n")
        write(engine, "pipelines/p.py", pipeline("the second"))
        assert engine.load() is None
        assert engine.xcoms(engine.execute("p")) == {"t": "the second"}
