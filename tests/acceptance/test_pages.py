"""The pages as people use them: a real browser, a server, chains that were trained."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from sqlalchemy import insert, update

from tests.support.browser import Visitor, chromium, visitor, wait_until
from tests.support.live_project import LiveProject
from tests.support.tiny_project import PIPELINE, folder_of, publish, tiny_project
from trainflow.actions.dags import read_into_database
from trainflow.api.server import ApiServer
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, CheckpointRef
from trainflow.checkpoints.ledger_changes.fork import fork
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.clock import SystemClock
from trainflow.engine.lock import engine_lock
from trainflow.metadata.database import Database
from trainflow.metadata.models import AttemptTable, DagRunTable, ImportProblemTable, TaskInstanceTable
from trainflow.metadata.queries import service_queries
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at
from trainflow.testing.contract_engine import api_in_thread, listening
from trainflow.testing.processes import wait_for
from trainflow.workspace.workspace import Workspace

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RUN = DagRunTable.table
TASK = TaskInstanceTable.table
ATTEMPT = AttemptTable.table

#: what a hostile name looks like
SCRIPT = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
#: a gate that nothing satisfies, on a copy of the model
STOPPED = PIPELINE.replace("pipeline: tiny", "pipeline: stopped").replace(
    'gates: ["loss is finite"]', 'gates: ["score >= 1000000"]'
)
PARAMS = """\
from trainflow import DAG
from trainflow.authoring.param import Param
from trainflow.operators import BashOperator

params = {"rows": Param(5, type="integer", minimum=1), "fast": Param(True, type="boolean")}
with DAG("asks", schedule=None, params=params):
    BashOperator(task_id="say", bash_command="true")
"""


def _make(root: Path) -> None:
    """A chain with a hole that has arrived since, one that a gate stopped, a branch, a DAG with params."""
    project = tiny_project(root / "project", days=9)
    project.write(
        "pipelines/tiny.yaml",
        (root / "project/pipelines/tiny.yaml").read_text().replace("checks:", "gaps: {then: skip}\n  checks:"),
    )
    end = (root / "project/pipelines/tiny.yaml").read_text().partition("end: ")[2].partition("\n")[0]
    project.write("pipelines/stopped.yaml", STOPPED.replace("end: 2024-01-31", f"end: {end}"))
    project.write("pipelines/asks.py", PARAMS)
    missing = folder_of(project, 4)
    shutil.rmtree(missing)
    assert project.start("tiny", "--plain").code == 0
    publish(project, 4)
    assert project.start("stopped", "--plain").code == 1
    project.wait_until_quiet()
    now, by = SystemClock().now(), Author(person="ada@here")
    ledger = project.ledger("tiny")
    head = ledger.checkpoint()
    promote(ledger, ledger.line()[0].id, "champion", by=by, now=now)
    origin = CheckpointRef(ledger.chain, head.id)
    fork(ledger.other(ChainKey("tiny", "main", "other")), origin, head.watermark, by=by, now=now)
    with Workspace.of(project_at(project.root)) as workspace:
        read_into_database(workspace, project.root / "pipelines/asks.py", now)


@pytest.fixture(scope="session")
def trained(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    return made_once("pages", _make) / "project"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:  # until it ends, no test of this process can run an event loop: not longer than a module
        yield found


class Served(NamedTuple):
    """A server over a project of its own. `engine`: what the one that lives holds."""

    base: str
    server: ApiServer
    database: Database
    root: Path
    engine: ExitStack

    def change(self, statement: Any) -> None:
        """Change the database, as an engine does."""
        with self.database.transaction() as connection:
            connection.execute(statement)

    def begin_engine(self) -> None:
        """Have an engine live in this process, until `engine` is closed."""
        self.engine.enter_context(engine_lock(project_at(self.root).home))
        with self.database.transaction() as connection:
            lease = service_queries.register_this_process(connection, "engine", SystemClock().now())
        stop = partial(service_queries.stop, service_id=lease, now=SystemClock().now())
        self.engine.callback(self.database.write, stop)

    @property
    def site(self) -> Any:
        """What the pages stand on."""
        return self.server.web.pages.made().site


@contextmanager
def _serving(root: Path) -> Iterator[Served]:
    settings, listener = load_settings(project := project_at(root)), listening()
    database = Database.of(project.home, settings)
    server = ApiServer(project, settings, SystemClock(), listener)
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with ExitStack() as engine, api_in_thread(server):
        (served := Served(base, server, database, root, engine)).begin_engine()
        yield served
    database.close()


@pytest.fixture
def served(trained: Path, tmp_path: Path) -> Iterator[Served]:
    """Over a copy, so that a test may do anything."""
    root = tmp_path / "project"
    shutil.copytree(trained, root, symlinks=True)
    with _serving(root) as found:
        yield found


@pytest.fixture(scope="session")
def looked_at(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """For tests that change nothing."""
    root = tmp_path_factory.mktemp("looked-at") / "project"
    shutil.copytree(trained, root, symlinks=True)
    _add_hostile_texts(root)
    with _serving(root) as found:
        yield found


def _add_hostile_texts(root: Path) -> None:
    """What people, pipelines and logs may say."""
    project = project_at(root)
    database = Database.of(project.home, load_settings(project))
    with database.transaction() as connection:
        newest = connection.execute(RUN.select().where(RUN.c.dag_id == "tiny").order_by(RUN.c.number)).first()
        assert newest is not None
        connection.execute(update(RUN).where(RUN.c.id == newest.id).values(note=SCRIPT, conf={SCRIPT: SCRIPT}))
        connection.execute(update(TASK).where(TASK.c.dag_run_id == newest.id).values(note=SCRIPT, problem=SCRIPT))
        problem = {"path": "pipelines/bad.yaml", "message": SCRIPT, "traceback": SCRIPT, "line": 3, "column": 7}
        connection.execute(insert(ImportProblemTable.table).values(**problem, at=SystemClock().now()))
        logs = connection.execute(ATTEMPT.select()).all()
    (root / "pipelines/bad.yaml").write_text("{")
    for attempt in logs:
        path = project.home.logs / attempt.log_name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as log:
            log.write(f"\x1b[31m{SCRIPT}\x1b[0m\n")
    database.close()


def _first_run(served: Served) -> str:
    with served.database.reading() as connection:
        row = connection.execute(RUN.select().where(RUN.c.dag_id == "tiny").order_by(RUN.c.number)).first()
    assert row is not None
    return f"dags/tiny/runs/{row.run_id.replace(':', '%3A').replace('+', '%2B')}"


CHAIN = "chains/tiny/main/main"
PAGES = {
    "fleet": "",
    "chain": CHAIN,
    "partition": f"{CHAIN}/partitions/2024-01-05T00:00:00Z",
    "checkpoints": f"{CHAIN}/checkpoints?compare=other",
    "checkpoint": f"{CHAIN}/checkpoints/head",
    "runs": "runs",
    "run": "RUN",
    "task": "RUN/tasks/train",
    "dags": "dags",
    "dag": "dags/asks",
    "waits": "waits",
    "problem": "chains/nothing/main/main",
}


#: these are left to the gate
OTHERS = [pytest.param(each, marks=pytest.mark.exhaustive) for each in PAGES if each != "fleet"]
#: the calendar has been drawn for the first time
DRAWN = "performance.getEntriesByName('calendar-drawn').length > 0"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fleet", *OTHERS])
def test_page_is_clean_light_dark_and_on_a_phone(browser: Browser, looked_at: Served, name: str) -> None:
    path = PAGES[name].replace("RUN", _first_run(looked_at))
    with visitor(browser, looked_at.base, color_scheme="light", viewport={"width": 1200, "height": 900}) as person:
        page = person.go(path)
        page.locator("main h1").wait_for()
        if name == "chain":
            wait_until(page, DRAWN)
        assert person.accessibility() == []
        assert page.title() != "taken"
        person.screenshot(f"{name}-light")
        page.emulate_media(color_scheme="dark")
        assert person.accessibility() == []
        person.screenshot(f"{name}-dark")
        page.set_viewport_size({"width": 360, "height": 720})
        assert not person.is_wider_than_its_window()
        person.screenshot(f"{name}-phone")
        if name == "problem":
            assert [each for each in person.complaints if "404" in each] == person.complaints
            person.complaints.clear()


@pytest.mark.slow
def test_what_people_wrote_is_text(browser: Browser, looked_at: Served) -> None:
    with visitor(browser, looked_at.base) as person:
        page = person.go(_first_run(looked_at))
        assert page.locator("main [data-part=facts]").inner_text().count("<script>") == 1
        page = person.go(f"{_first_run(looked_at)}/tasks/train")
        assert SCRIPT in page.locator("#log").inner_text()
        assert page.locator("#log span.ansi-red").inner_text() == SCRIPT
        page = person.go("waits")
        assert SCRIPT in page.locator("[data-part=problems]").inner_text()
        assert page.locator("[data-part=problems] h3").inner_text() == "pipelines/bad.yaml:3:7"
        assert page.locator("main script, main img").count() == 0
        assert "taken" not in page.title()


@pytest.mark.slow
def test_clicking_leads_from_the_fleet_to_a_file_and_to_a_log(browser: Browser, looked_at: Served) -> None:
    with visitor(browser, looked_at.base) as person:
        page = person.go()
        names = page.locator(".fleet h2").all_inner_texts()
        assert names.index("stopped") < names.index("tiny")
        # what no person has to see to is a line
        assert page.locator(".lines tbody th").all_inner_texts() == ["asks"]
        stopped = page.locator("#dag-stopped").inner_text()
        assert "stopped by a gate" in stopped
        assert "trainflow resume stopped --accept" in stopped
        page.get_by_role("link", name="tiny", exact=True).click()
        page.get_by_role("link", name="Checkpoints", exact=True).click()
        page.locator("figure.chart").nth(1).wait_for()
        page.locator("tbody a").first.click()
        with page.expect_download() as download:
            page.get_by_role("link", name="rows.npy").click()
        assert download.value.path().stat().st_size > 100
        page.get_by_role("link", name=re.compile("^run ")).click()
        page.locator("svg.graph .s-success").nth(4).wait_for()
        page.locator("svg.gantt .bar").nth(4).wait_for()
        page.locator("table").get_by_role("link", name="train", exact=True).click()
        page.locator("caption", has_text="Attempts").wait_for()
        page.locator("main", has_text="rows").wait_for()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_calendar_is_used_with_keys_alone_and_its_address_leads_back(browser: Browser, looked_at: Served) -> None:
    with visitor(browser, looked_at.base) as person:
        page = person.go(CHAIN)
        wait_until(page, DRAWN)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "calendar-canvas":
                break
        assert page.evaluate("document.activeElement.id") == "calendar-canvas"
        page.keyboard.press("+")
        page.keyboard.press("ArrowRight")
        assert "main/main: 2024-01-05 late" in page.locator("#calendar-cell").inner_text()
        page.keyboard.press("Enter")
        page.locator("#calendar-partition h3").wait_for()
        assert "a hole that has arrived since" in page.locator("#calendar-partition").inner_text()
        wait_until(page, "location.search.includes('from=') && location.search.includes('at=')")
        seen = page.locator("#calendar-range").inner_text()
        person.go(page.url.removeprefix(person.base))
        page.locator("#calendar-partition h3").wait_for()
        assert page.locator("#calendar-range").inner_text() == seen
        page.locator("#calendar-partition a").first.click()
        page.get_by_role("heading", name="Partition 2024-01-05").wait_for()


def _wait_for_streams(served: Served, count: int) -> None:
    """Wait until so many pages are open."""
    streams = served.site.feed._subscribers
    wait_for(lambda: len(streams) == count, lambda: f"{count} streams, not {len(streams)}")


@pytest.mark.slow
def test_page_follows_and_costs_nothing_in_the_background(browser: Browser, served: Served) -> None:
    with visitor(browser, served.base) as person:
        page = person.go(_first_run(served))
        _wait_for_streams(served, 1)
        with served.database.reading() as connection:
            row = connection.execute(RUN.select().where(RUN.c.dag_id == "tiny").order_by(RUN.c.number)).first()
        assert row is not None
        served.change(update(RUN).where(RUN.c.id == row.id).values(state="running", note="it goes on"))
        page.locator("[data-part=facts]", has_text="it goes on").wait_for()
        _hide(page, hidden=True)
        _wait_for_streams(served, 0)
        served.change(update(RUN).where(RUN.c.id == row.id).values(note="no one looks"))
        _hide(page, hidden=False)
        page.locator("[data-part=facts]", has_text="no one looks").wait_for()
        _wait_for_streams(served, 1)


def _hide(page: Page, *, hidden: bool) -> None:
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


@pytest.mark.exhaustive
@pytest.mark.slow
def test_dead_engine_is_said_and_page_goes_on_when_it_is_back(browser: Browser, served: Served) -> None:
    with visitor(browser, served.base) as person:
        page = person.go("dags/asks")
        page.get_by_role("button", name="Trigger").wait_for()
        served.engine.close()
        page.locator("#banner", has_text="no engine is alive").wait_for()
        page.get_by_role("button", name="Trigger").click()
        page.get_by_text("nothing is done from here while no engine is alive").wait_for()
        person.complaints.clear()  # the refusal is an answer of 400
        person.go()
        served.begin_engine()
        page.locator("#engine-text", has_text="engine alive").wait_for()
        assert page.locator("#banner").is_hidden()
        page.get_by_role("button", name="Accept the checkpoint …").wait_for()


@pytest.mark.slow
def test_server_that_ends_is_said(browser: Browser, trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(trained, root, symlinks=True)
    opened = browser.new_context()
    with _serving(root) as served:
        person = Visitor(opened, served.base)
        page = person.go()
        _wait_for_streams(served, 1)
    page.locator("#banner", has_text="lost its server").wait_for()
    opened.close()


@pytest.mark.slow
def test_run_is_triggered_and_cancelled_from_the_page(browser: Browser, served: Served) -> None:
    with visitor(browser, served.base) as person:
        page = person.go("dags/asks")
        page.get_by_label("rows").fill("7")
        page.get_by_label("fast").uncheck()
        page.get_by_role("button", name="Trigger").click()
        page.get_by_text("Conf").click()
        assert json.loads(page.locator("pre").first.inner_text()) == {"rows": 7, "fast": False}
        page.get_by_role("button", name="Cancel the run …").click()
        page.get_by_text("Nothing has been done yet").wait_for()
        page.get_by_role("button", name="Do it").click()
        page.locator("[data-part=facts] .s-failed").wait_for()
        page.goto(served.base + "/runs?dag=asks")
        assert page.locator("tbody tr").count() == 1


@pytest.mark.slow
def test_decision_is_shown_first_and_then_in_the_ledger(browser: Browser, served: Served) -> None:
    project = LiveProject.__new__(LiveProject)
    project.root = served.root
    with visitor(browser, served.base) as person:
        page = person.go()
        entries = project.ledger("stopped").state().sequence
        page.get_by_role("button", name="Leave the split out …").click()
        page.get_by_text("trainflow resume stopped --skip").wait_for()
        assert project.ledger("stopped").state().sequence == entries
        page.get_by_label("Reason").fill("the labels were wrong")
        page.get_by_role("button", name="Do it").click()
        page.get_by_text("the labels were wrong").first.wait_for()
        assert project.ledger("stopped").state().stopped is None
        person.go(f"{CHAIN}/checkpoints/head")
        page.get_by_label("Alias").fill("newest")
        page.get_by_role("button", name="Promote …").click()
        page.get_by_role("button", name="Do it").click()
        page.locator(".state", has_text="newest").wait_for()
        assert set(project.ledger("tiny").state().promoted) == {"champion", "newest"}
