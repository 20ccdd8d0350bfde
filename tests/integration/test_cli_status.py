"""`trainflow status` and the estimates of `plan` over a real metadata database."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, update

from tests.integration.cli_home import NOW, YAML, Home, commit, publish
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.gates import Gate
from trainflow.clock import SystemClock
from trainflow.errors import ChainStopped
from trainflow.execution.parse_main import parse_file
from trainflow.messages.workload import DagSource, ParseFile
from trainflow.metadata.queries import dag_queries, outbox_queries, service_queries
from trainflow.metadata.queries.attempt_queries import ATTEMPT
from trainflow.metadata.queries.service_queries import SERVICE
from trainflow.observability import file_access
from trainflow.observability.processes import started_at
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter

#: what a disk without room says of itself
FULL = os.statvfs_result((4096, 4096, 1000, 0, 0, 1000, 500, 500, 0, 255))


@pytest.fixture
def home(inside: Callable[..., Home]) -> Iterator[Home]:
    home = inside(Home, {"pipelines/days.yaml": YAML})
    home.read()
    yield home
    home.database.close()


def test_status_of_project_that_never_ran(home: Home) -> None:
    status = home.json("status")

    assert status["engine"] == {
        "alive": False, "pid": None, "hostname": None, "since": None, "triggers": False,
        "silent_seconds": None, "problem": None,
    }  # fmt: skip
    [line] = status["pipelines"]
    assert (line["dag_id"], line["head_number"], line["watermark"], line["lag"]) == ("days", 0, None, 0)
    assert (line["run"], line["last_run"], line["last_failure"]) == (None, None, None)


@pytest.mark.usefixtures("engine_of_home")
def test_status_of_pipeline_at_work(home: Home) -> None:
    publish(home, "2013-01-01", "2013-01-02", "2013-01-03", "2013-01-05")
    commit(home, 2, "earlier")
    run = home.start_run()
    home.task(run, "checkpoint", "success")
    train = home.task(run, "train", "running", started_at=NOW, progress={"done": 3, "total": 4, "unit": "rows"})
    with home.database.transaction() as connection:
        connection.execute(
            insert(ATTEMPT).values(
                attempt_id="a",
                task_instance_id=train,
                try_number=1,
                outcome="failed",
                queued_at=NOW,
                ended_at=NOW,
                problem="ValueError: nan",
                log_name="l",
            )
        )

    status = home.json("status", "days")

    assert (status["engine"]["pid"], status["engine"]["alive"]) == (os.getpid(), True)
    assert datetime.fromisoformat(status["engine"]["since"]) >= NOW
    [line] = status["pipelines"]
    assert (line["head_number"], line["watermark"], line["lag"]) == (1, "2013-01-03T00:00:00Z", 2)
    assert (line["run"]["run_id"], line["run"]["task_id"], line["run"]["progress"]["done"]) == ("first", "train", 3)
    assert (line["last_failure"]["task_id"], line["last_failure"]["problem"]) == ("train", "ValueError: nan")
    assert (line["undelivered"], status["undelivered"]) == (1, 1)
    code, out = home.run("status")
    assert code == 0
    assert f"engine: alive (pid {os.getpid()}" in out
    assert "run 1: train 75%" in out
    assert max(map(len, out.splitlines()[2:4])) <= 80


@pytest.mark.usefixtures("engine_of_home")
@pytest.mark.parametrize(
    ("seconds", "full", "says"),
    [
        (10, True, None),
        (50, False, "it is stopped or overloaded, or the database takes no writes"),
        (50, True, "trainflow.db cannot be written, its disk is full: make room on it. Attempts that run go on"),
        # longer than other parts of the control plane count as living: it holds the lock of the home
        (3_600, True, "the engine has written nothing to its database for 1h00m"),
    ],
)
def test_status_and_why_say_that_engine_writes_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch, seconds: int, full: bool, says: str | None
) -> None:
    run = home.start_run()
    home.task(run, "train", "running", started_at=NOW)
    with home.database.transaction() as connection:
        connection.execute(update(SERVICE).values(heartbeat_at=SystemClock().now() - timedelta(seconds=seconds)))
    if full:
        monkeypatch.setattr(file_access.os, "statvfs", lambda _path: FULL)

    engine = home.json("status")["engine"]

    assert (engine["alive"], engine["triggers"]) == (True, True)
    assert (engine["silent_seconds"] is None, engine["problem"] is None) == (says is None, says is None)
    for command in ("status", "why"):
        out = home.run(command)[1]
        assert "has written nothing" not in out if says is None else says in " ".join(out.split())


def test_status_delivery_refused_by_mlflow_is_counted_until_redelivered(home: Home) -> None:
    with home.database.transaction() as connection:
        for key in ("a", "b"):
            outbox_queries.add_payload(
                connection, channel=OutboxChannel.MLFLOW, key=key, kind="promoted", payload={}, now=NOW
            )
        outbox_queries.given_up(connection, 1, "MlflowException: the value is too long", NOW)
        outbox_queries.delivered(connection, 2, NOW)

    status = home.json("status")
    assert (status["undelivered"], status["refused"]) == (0, 1)
    assert status["refused_reason"] == "MlflowException: the value is too long"
    assert "MLflow: 1 delivery refused: MlflowException: the value is too long; " in home.run("status")[1]

    code, out = home.run("mlflow", "--redeliver")
    assert (code, out.split(":")[0]) == (0, "1 delivery to make again")
    status = home.json("status")
    assert (status["undelivered"], status["refused"]) == (1, 0)


def test_status_shows_what_no_engine_has_read(home: Home) -> None:
    (home.project.root / "pipelines/new.yaml").write_text(YAML.replace("days", "new"))
    (home.project.root / "pipelines/torn.yaml").write_text("pipeline: [")
    (home.project.root / "pipelines/code.py").write_text("while True: pass")

    lines = {line["dag_id"]: line for line in home.json("status")["pipelines"]}

    assert {name: line["known"] for name, line in lines.items()} == {
        "code": False,
        "days": True,
        "new": False,
        "torn": False,
    }
    assert lines["new"]["head_number"] == 0
    assert "not valid YAML" in lines["torn"]["import_problem"]
    assert lines["code"]["import_problem"] is None


@pytest.mark.parametrize("command", [("status",), ("why",), ("status", "days"), ("why", "days"), ("why", "code")])
def test_status_and_why_read_no_file_as_pipeline(
    home: Home, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Reading runs code of a user, which may take for ever."""

    def read(*_: object) -> None:
        raise AssertionError("a pipeline file is read")

    (home.project.root / "pipelines/code.py").write_text("while True: pass")
    monkeypatch.setattr("trainflow.workspace.pipeline_file.read_file", read)

    assert home.run(*command)[0] == 0


def test_status_without_database(home: Home) -> None:
    commit(home, 2, "earlier")
    home.database.close()
    home.project.home.database.unlink()

    [line] = home.json("status")["pipelines"]

    assert (line["head_number"], line["known"]) == (1, False)
    assert not home.project.home.database.exists()


def test_status_survives_corrupt_ledger(home: Home) -> None:
    commit(home, 2, "earlier")
    (home.project.root / "checkpoints" / ChainKey("days").entry(1)).write_bytes(b"{")

    [line] = home.json("status")["pipelines"]

    assert "torn" in line["problem"]
    assert line["lag"] is None


def test_status_by_name_of_dag_whose_file_is_gone_is_shown(home: Home) -> None:
    (home.project.root / "pipelines/days.yaml").unlink()
    with home.database.transaction() as connection:
        dag_queries.mark_missing(connection, "pipelines/days.yaml", [], NOW)

    assert home.why()[0] == "missing_file"
    assert home.json("status")["pipelines"] == []
    assert home.run("why", "nothing")[0] == 2


def test_status_shows_branch_and_chain_side_by_side_in_either_order(home: Home) -> None:
    def read(moment: datetime, **overrides: str) -> None:
        source = DagSource("pipelines/days.yaml", overrides)
        request = ParseFile(source, str(home.project.root), str(home.project.home.path))
        with home.database.transaction() as connection:
            result = parse_file(request).result
            assert dag_queries.store_result(connection, source, result, moment, is_there=lambda _: True) is None

    read(NOW)
    read(NOW + timedelta(seconds=1), branch="deep")
    with home.database.reading() as connection:
        # what is begun, and what the file is read with when it changes, is what was asked for last
        assert dag_queries.of_path(connection, "pipelines/days.yaml") == ["days.main.deep"]
        assert dag_queries.overrides_of(connection, "pipelines/days.yaml") == {"branch": "deep"}
    assert [line["dag_id"] for line in home.json("status")["pipelines"]] == ["days", "days.main.deep"]
    home.start_run()
    assert [run["dag_id"] for run in home.json("runs", "list", "pipelines/days.yaml")] == ["days"]

    # a DAG that the file does not give for its own branch any more is gone
    (home.project.root / "pipelines/days.yaml").write_text(YAML.replace("pipeline: days", "pipeline: weeks"))
    read(NOW + timedelta(seconds=2))
    assert [line["dag_id"] for line in home.json("status")["pipelines"]] == ["days.main.deep", "weeks"]


def test_runs_list_by_file_name_shows_runs_of_pipeline(home: Home) -> None:
    (home.project.root / "pipelines/days.yaml").rename(home.project.root / "pipelines/calendar.yaml")
    home.read("calendar.yaml")
    home.start_run()
    assert [run["dag_id"] for run in home.json("runs", "list", "calendar")] == ["days"]
    assert home.run("runs", "list", "nothing")[0] == 2


@pytest.mark.parametrize(("hostname", "alive"), [(socket.gethostname(), False), ("elsewhere", True)])
def test_status_lease_of_dead_process_is_not_believed(home: Home, hostname: str, alive: bool) -> None:
    with home.database.transaction() as connection:
        service_queries.register(
            connection, kind="scheduler", hostname=hostname, pid=2**22 + 1, process_started=1.0, now=SystemClock().now()
        )

    assert home.json("status")["engine"]["alive"] is alive


@pytest.mark.parametrize(("kind", "alive"), [("engine", False), ("scheduler", True)])
def test_status_lease_of_engine_that_does_not_hold_the_home_is_of_another(home: Home, kind: str, alive: bool) -> None:
    """In a copy of a home at work its database names the other's engine; a scheduler alone holds no home."""
    with home.database.transaction() as connection:
        service_queries.register(
            connection,
            kind=kind,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            process_started=started_at(os.getpid()),
            now=SystemClock().now(),
        )

    engine = home.json("status")["engine"]
    assert (engine["alive"], engine["triggers"]) == (alive, False)


def test_plan_estimates_from_what_ledger_says_earlier_runs_took(home: Home) -> None:
    commit(home, 2, "first", seconds=10.0)  # 20 rows
    folder = home.project.root / "data/date=2013-01-03"
    folder.mkdir(parents=True)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1, 2, 3, 4]}), folder / "part.parquet")
    (folder / "_SUCCESS").touch()

    plan = home.json("plan", "days")

    assert plan["runs"][0]["rows"] == 4
    assert plan["estimated_seconds"] == pytest.approx(4 * 10.0 / 20)
    finish = datetime.fromisoformat(plan["finish_at"]) - datetime.now(UTC)
    assert abs(finish - timedelta(seconds=2)) < timedelta(minutes=1)
    assert (plan["never_catches_up"], plan["holes_arrived"]) == (False, 0)


def test_chain_that_is_slower_than_its_samples_says_so_everywhere(home: Home) -> None:
    publish(home, *(f"2013-01-0{number}" for number in range(3, 8)))
    commit(home, 2, "first", seconds=2 * 26 * 3600.0)

    [line] = home.json("status", "days")["pipelines"]
    assert (line["lag"], line["lag_seconds"]) == (5, 5 * 86_400.0)
    assert (line["never_catches_up"], line["catches_up_in_seconds"]) == (True, None)
    assert home.why()[1].endswith("at this rate it never catches up: it is 5 days behind")
    code, said = home.run("plan", "days")
    # a file that cannot be read yet may still be being written: no reason to fail
    assert (code, "at this rate it never catches up" in said) == (0, True)


def test_status_changes_behind_chain_are_shown(home: Home) -> None:
    writer = ChainWriter(LocalStore(home.project.root / "checkpoints"), home.project.root / "scratch", ChainKey("days"))
    writer.commit(days=3, skip=[1])
    publish(home, "2013-01-01", "2013-01-02")  # trained with another content; stepped over

    [line] = home.json("status", "days")["pipelines"]
    assert line["republished"] == ["2013-01-01T00:00:00Z"]
    assert (line["holes"], line["holes_arrived"]) == (1, 1)
    shown = home.run("status", "days")[1]
    assert "days: 1 partition published again after training\ndays: 1 hole, 1 arrived\n" in shown
    sentence = home.why()[1]
    assert "partition 2013-01-01T00:00Z was published again after being trained on" in sentence
    assert "1 partition of its holes has arrived: 'trainflow repair pipelines/days.yaml'" in sentence
    assert home.json("plan", "days")["holes_arrived"] == 1


def test_outbox_reason_is_shown(home: Home) -> None:
    home.start_run()
    with home.database.transaction() as connection:
        outbox_queries.failed(connection, 1, reason="connection refused", delay=timedelta(hours=1), now=NOW)

    code, out = home.run("status")

    assert code == 0
    assert "MLflow: 1 delivery waits: connection refused" in out


#: what one process says of the project, and what three say
_SHARED = """
import os
from trainflow.clock import SystemClock
from trainflow.insight import status as insight
from trainflow.workspace.locate import open_selection

made, fork = [], os.fork
os.fork = lambda: made.append(fork()) or made[-1]
now = SystemClock().now()
with open_selection(None) as selection:
    alone, shared = (insight.status(selection, now, processes=processes) for processes in (1, 3))
assert len(made) == 2, made
assert shared == alone
for one, other in zip(alone.pipelines, shared.pipelines, strict=True):
    assert repr(one) == repr(other), (one, other)
print(*("?" if line.problem else line.head_number for line in shared.pipelines))
"""


def test_status_that_processes_share_is_that_of_one(home: Home) -> None:
    publish(home, *(f"2013-01-0{number}" for number in range(1, 8)))
    store, scratch = LocalStore(home.project.root / "checkpoints"), home.project.root / "scratch"
    for number in range(11):
        name = f"days_{number:02}"
        (home.project.root / f"pipelines/{name}.yaml").write_text(YAML.replace("pipeline: days", f"pipeline: {name}"))
        home.read(f"{name}.yaml")
        writer = ChainWriter(store, scratch / name, ChainKey(name))
        for _ in range(number % 4):
            writer.commit(days=2, skip=[0] if number == 5 else [], metrics={"auc": number / 7})
    with pytest.raises(ChainStopped):
        writer.commit(metrics={"auc": 0.1}, gates=(Gate("auc >= 0.6"),))
    entry = next((home.project.root / "checkpoints/days_07").rglob("ledger/*.json"))
    entry.write_bytes(entry.read_bytes().replace(b"auc", b"AUC"))

    done = subprocess.run([sys.executable, "-c", _SHARED], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("0 0 1 2 3 0 1 2 ? 0 1 2\n", "")
