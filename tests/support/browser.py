"""Headless Chromium for tests of the pages. Debian's, driven by Playwright, whose own browsers are not downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.support.local_object_stores import missing
from trainflow.testing.processes import DEADLINE_SECONDS, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

#: where screenshots are kept; none are taken without it
SCREENSHOTS = "PAGES_SCREENSHOTS"
#: nothing of its own is asked of the network
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser. Where it is missing the test is skipped; with `CI` set that is an error."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        missing(f"no Playwright: {error}; pip install 'trainflow[test]'")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        missing("no Chromium: 'apt-get install chromium'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """A person at a browser: pages of one server, and what went wrong in them."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.context = context
        self.base = base.rstrip("/") + "/"
        self.page: Page = context.new_page()
        self.page.set_default_timeout(DEADLINE_SECONDS * 1000)
        #: errors and warnings of the console, and exceptions of scripts
        self.complaints: list[str] = []
        #: requests to other hosts
        self.abroad: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._see)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _see(self, request: Any) -> None:
        if urlsplit(request.url).netloc not in ("", urlsplit(self.base).netloc):
            self.abroad.append(request.url)

    def go(self, path: str = "") -> Page:
        """Open a page, and wait until it is drawn."""
        self.page.goto(self.base + path.lstrip("/"))
        self.page.wait_for_load_state("load")
        return self.page

    def check(self) -> None:
        """Nothing was complained of, and nothing was asked of another host."""
        assert self.complaints == [], self.complaints
        assert self.abroad == [], self.abroad

    def accessibility(self) -> list[str]:
        """What axe has against the page as it is."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page)
        return [
            f"{each['id']}: {each['help']}: {[node['html'][:120] for node in each['nodes'][:3]]}"
            for each in found.response["violations"]
        ]

    def is_wider_than_its_window(self) -> bool:
        """Whether one has to scroll sideways."""
        wide: bool = self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        return wide

    def screenshot(self, name: str) -> None:
        """Keep what is seen, where that is wanted."""
        folder = os.environ.get(SCREENSHOTS)
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@contextmanager
def visitor(browser: Browser, base: str, **context: Any) -> Iterator[Visitor]:
    """A person with a window of their own; nothing may have gone wrong at the end."""
    opened = browser.new_context(**context)
    try:
        found = Visitor(opened, base)
        yield found
        found.check()
    finally:
        opened.close()


def wait_until(page: Page, condition: str) -> None:
    """Wait until a script says so; asked from outside, since pages forbid scripts that are made of text."""
    wait_for(lambda: page.evaluate(condition), condition)
