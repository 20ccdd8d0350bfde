"""What Prometheus is given: chains without a listing, attempts counted once, whatever a store does."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete

from tests.documents import ROOT
from tests.integration.execution_requests import O
from tests.support.control_plane import START, ControlPlane, control_plane, empty_task
from tests.support.rest import know_pipeline, write_chain
from trainflow.clock import ManualClock
from trainflow.engine.loop_utilization import LoopUtilization
from trainflow.executors.reactor import Reactor
from trainflow.insight.chains import chain_status
from trainflow.insight.metrics import chain_gauges
from trainflow.insight.metrics.metrics import Metrics
from trainflow.metadata.models import DagRunTable
from trainflow.metadata.queries import service_queries
from trainflow.metadata.queries.service_list_queries import LoopUse, ServiceDetails
from trainflow.testing.chains import ChainWriter, split_of
from trainflow.workspace.workspace import Workspace

FLIGHTS = {"dag_id": "flights", "pipeline": "flights", "stage": "main", "branch": "main"}
#: labels that name something of a run: a series for each would be kept for ever
OF_A_RUN = {"run_id", "attempt_id", "checkpoint_id", "map_index", "try_number"}


@pytest.fixture
def writer(tmp_path: Path) -> ChainWriter:
    return write_chain(tmp_path)


@pytest.fixture
def plane(tmp_path: Path, writer: ChainWriter) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as plane:
        know_pipeline(plane)
        yield plane


class Scraper:
    """Asks for metrics as Prometheus does, and reads them as its client does."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._metrics = Metrics(Workspace(plane.project, plane.settings, plane.database), plane.clock)
        self.text = ""

    def scrape(self, seconds: float = 15) -> Scraper:
        self._plane.clock.advance(timedelta(seconds=seconds))
        self.text = self._metrics.text()
        return self

    @property
    def samples(self) -> list[Any]:
        return [each for family in text_string_to_metric_families(self.text) for each in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        found = [
            each.value
            for each in self.samples
            if each.name == f"trainflow_{name}" and labels.items() <= each.labels.items()
        ]
        assert len(found) <= 1, found
        return found[0] if found else None

    def of_chain(self, *names: str) -> tuple[float | None, ...]:
        return tuple(self.value(f"chain_{name}", **FLIGHTS) for name in names)


@pytest.fixture
def scraper(plane: ControlPlane) -> Scraper:
    return Scraper(plane)


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A look at the samples is counted here."""
    counted: list[object] = []
    opened = chain_status.open_inventory
    monkeypatch.setattr(chain_status, "open_inventory", lambda *given: counted.append(given) or opened(*given))
    return counted


def make_ready(root: Path, *days: int) -> None:
    for number in days:
        folder = root / f"data/date=2013-01-{number + 1:02d}"
        folder.mkdir(parents=True)
        (folder / "part-0.parquet").write_bytes(b"x")


def test_metrics_say_where_a_chain_is(scraper: Scraper, tmp_path: Path, writer: ChainWriter) -> None:
    make_ready(tmp_path, 5, 9, 10)
    scraper.scrape()
    assert scraper.of_chain("head_number", "partitions", "rewinds", "stopped") == (3, 8, 0, 0)
    assert scraper.of_chain("lag_partitions", "lag_seconds", "holes", "holes_arrived") == (2, 2 * 86400, 1, 1)
    state = writer.ledger.state()
    assert state.watermark is not None
    assert state.head is not None
    assert scraper.of_chain("watermark_timestamp_seconds", "committed_timestamp_seconds", "problem") == (
        state.watermark.timestamp(), state.head.at.timestamp(), 0,
    )  # fmt: skip


def test_scrape_follows_the_ledger_and_lists_no_samples(
    scraper: Scraper, tmp_path: Path, writer: ChainWriter, listings: list[object]
) -> None:
    make_ready(tmp_path, 9, 10, 11)
    assert scraper.scrape().of_chain("lag_partitions") == (3,)
    first = len(listings)
    writer.commit(split=split_of(9, 2))
    assert scraper.scrape().of_chain("head_number", "lag_partitions", "lag_seconds") == (4, 1, 86400)
    assert len(listings) == first
    make_ready(tmp_path, 12)
    assert scraper.scrape(chain_gauges.SAMPLES_SECONDS).of_chain("lag_partitions") == (2,)
    assert len(listings) > first


def test_store_that_does_not_answer_holds_up_no_scrape_and_shows_by_its_age(
    scraper: Scraper, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_gauges, "PATIENCE_SECONDS", 0.01)
    released = threading.Event()
    before = scraper.scrape().of_chain("head_number", "read_timestamp_seconds")
    (watched,) = [each for each in scraper._metrics._chains._chains.values() if each is not None]
    monkeypatch.setattr(watched.ledger, "state", lambda: released.wait(10) and None)
    plane.add_dag("d", empty_task("a"))
    plane.add_run("d")
    assert scraper.scrape().of_chain("head_number", "read_timestamp_seconds") == before
    assert scraper.value("runs", dag_id="d") == 1
    released.set()


def test_store_that_fails_is_a_problem_of_its_chain(scraper: Scraper, monkeypatch: pytest.MonkeyPatch) -> None:
    scraper.scrape()
    (watched,) = [each for each in scraper._metrics._chains._chains.values() if each is not None]

    def fail() -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(watched.ledger, "state", fail)
    assert scraper.scrape().of_chain("problem", "head_number") == (1, 3)


def test_attempts_are_counted_once_and_stay_counted_when_their_run_is_deleted(
    scraper: Scraper, plane: ControlPlane
) -> None:
    plane.add_dag("d", empty_task("a"))
    run = plane.add_run("d")
    (work,) = plane.tick()
    plane.claim(work)
    assert scraper.scrape().value("attempts_total", dag_id="d") is None
    plane.play(work, O.FAILED)
    labels = {"dag_id": "d", "task_id": "a", "outcome": "failed"}
    assert [scraper.scrape().value("attempts_total", **labels) for _ in range(2)] == [1, 1]
    assert scraper.value("attempts_total", **{**labels, "outcome": "lost"}) == 0
    with plane.database.transaction() as connection:
        connection.execute(delete(DagRunTable.table).where(DagRunTable.table.c.id == run))
    assert scraper.scrape(3600).value("attempts_total", **labels) == 1


def test_attempt_that_is_deleted_while_under_way_is_forgotten(scraper: Scraper, plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("a"))
    run = plane.add_run("d")
    plane.tick()
    scraper.scrape()
    assert len(scraper._metrics._attempts._open) == 1
    with plane.database.transaction() as connection:
        connection.execute(delete(DagRunTable.table).where(DagRunTable.table.c.id == run))
    scraper.scrape()
    assert not scraper._metrics._attempts._open


def test_loop_of_a_living_scheduler_is_told_by_its_host(scraper: Scraper, plane: ControlPlane) -> None:
    details = ServiceDetails("0", loop=LoopUse(7, 1.5, 0.25))
    with plane.database.transaction() as connection:
        service_queries.renew_lease(connection, plane.service_id, plane.clock.now(), details)
    scraper.scrape()
    assert scraper.value("scheduler_loop_seconds_count", hostname="here") == 7
    assert scraper.value("scheduler_loop_seconds_sum", hostname="here") == 1.5
    assert scraper.value("scheduler_loop_longest_seconds", hostname="here") == 0.25
    assert scraper.value("service_heartbeat_timestamp_seconds", kind="engine") is not None
    scraper.scrape(3600)
    assert scraper.value("service_heartbeat_timestamp_seconds", kind="engine") is None


def test_no_label_names_a_run(scraper: Scraper, plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("a"))
    plane.add_run("d", "a_run")
    (work,) = plane.tick()
    plane.play(work, O.SUCCESS)
    scraper.scrape()
    assert not OF_A_RUN & {label for each in scraper.samples for label in each.labels}
    assert work.key.attempt_id not in scraper.text
    assert "a_run" not in scraper.text


RULES = [
    rule
    for group in yaml.safe_load((ROOT / "docs" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_rule_of_the_documents_asks_for_what_there_is(rule: dict[str, Any], scraper: Scraper) -> None:
    promql_parser.parse(rule["expr"])
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[smhd]", rule.get("for", "1m"))
    families = list(text_string_to_metric_families(scraper.scrape().text))
    # the parser takes the end off the name of a counter
    names = {name for each in families for name in (each.name, f"{each.name}_total", f"{each.name}_sum")}
    asked = set(re.findall(r"trainflow_\w+", rule["expr"]))
    assert asked
    assert asked <= names


#: labels whose values are as many as what is configured: chains, tasks, hosts, kinds of a thing
BOUNDED = {
    *("pipeline", "stage", "branch", "dag_id", "task_id", "pool", "executor", "queue", "hostname", "store", "version"),
    *("state", "outcome", "kind", "channel", "op", "direction", "le"),
}


def test_metrics_follow_the_conventions_of_prometheus(scraper: Scraper, plane: ControlPlane) -> None:
    """What `promtool check metrics` asks for, and no label whose values are without bound."""
    plane.add_dag("d", empty_task("a"))
    plane.add_run("d", "a_run")
    (work,) = plane.tick()
    plane.play(work, O.FAILED)
    text = scraper.scrape().text
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert re.fullmatch(r"trainflow_[a-z]+(_[a-z]+)*", name), name
        assert family.type in ("counter", "gauge", "summary", "histogram"), name
        assert f"# TYPE {name} {family.type}\n" in text, "the name of a counter ends in _total"
        assert family.type == "counter" or not name.endswith(("_total", "_count", "_sum", "_bucket", "_info_total")), (
            name
        )
        assert not re.search(r"_(ms|milliseconds|minutes|hours|days|kib|mib|kilobytes|megabytes|percent)\b", name), name
        assert family.documentation.endswith("."), name
        assert {label for each in family.samples for label in each.labels} <= BOUNDED, name


def test_documents_name_each_metric(scraper: Scraper) -> None:
    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    text += (ROOT / "docs" / "stores.md").read_text(encoding="utf-8")
    for family in re.findall(r"^# TYPE (\w+)", scraper.scrape().text, re.MULTILINE):
        ending = family.removeprefix("trainflow_chain")
        assert f"`{family}`" in text or f"`{ending}`" in text, family


def test_loop_utilization_leaves_out_what_the_reactor_waited() -> None:
    clock = ManualClock(START)
    reactor = Reactor(clock)
    counter = LoopUtilization(clock, reactor)
    for busy, waited in ((1, 5), (3, 60)):
        counter.begin()
        clock.advance(timedelta(seconds=busy + waited))
        reactor.waited_seconds += waited
        counter.end()
    assert counter.details().loop == LoopUse(2, 4.0, 3.0)
    assert counter.details().loop == LoopUse(2, 4.0, 0.0)
    reactor.close()
