"""One look at the database for all pages that are open: what has changed since the last one, told to whom it concerns.

A topic is what a page shows: `fleet`, `runs`, `waits`, `dag:ID`, `run:ID/RUN`. Each has a number that rises when
something of it has changed; a page that was rendered at a number is good as long as that stands.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from trainflow.clock import Clock
from trainflow.insight.live import Look
from trainflow.metadata.transaction_retries import is_own_fault

log = logging.getLogger(__name__)

#: seconds between two looks while a page is open
POLL_SECONDS = 1.0
#: a stream that has nothing to say says so after so many seconds: a proxy would close it, and a page think it dead
_ALIVE_SECONDS = 15.0


class EngineNews(msgspec.Struct, frozen=True):
    """What every page says of the engine: `alive`, `slow` (its lease was not renewed in time), `none`, or `database`:
    the database cannot be read."""

    state: str
    sentence: str = ""


class Subscriber:
    """One open page. All of it is used by the event loop alone."""

    def __init__(self, topics: Collection[str]) -> None:
        self.topics = frozenset(topics)
        self.changed: set[str] = set()
        self.news: EngineNews | None = None
        self.wake = asyncio.Event()


class Feed:
    """Looks while a page is open, in a thread of its own that ends when none is."""

    def __init__(
        self,
        look: Callable[[], Look],
        clock: Clock,
        *,
        poll_seconds: float = POLL_SECONDS,
        beside: Callable[[], object] = lambda: None,
    ) -> None:
        """`beside`: is called after each look while a page is open, and must not wait."""
        self._look_once = look
        self._beside = beside
        self._clock = clock
        self._poll_seconds = poll_seconds
        #: held by the one that looks, which may take as long as a database is away; taken by no event loop
        self._looking = threading.Lock()
        #: held for moments: who is told, and what was seen
        self._lock = threading.Lock()
        self._subscribers: dict[Subscriber, asyncio.AbstractEventLoop] = {}
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._seen: Mapping[str, Any] = {}
        self._numbers: dict[str, int] = {}
        self._looked_at = float("-inf")
        #: looks so far: what a test counts
        self.looks = 0
        self.engine = EngineNews("none")

    def numbers(self) -> dict[str, int]:
        """The number of each topic, after a look that is not older than the pause between two."""
        with self._looking:
            if self._clock.monotonic() - self._looked_at >= self._poll_seconds:
                self._look()
        with self._lock:
            return dict(self._numbers)

    def changed(self, topics: Collection[str]) -> None:
        """Say that something of these topics has changed, which no look at the database shows."""
        with self._lock:
            self._tell(set(topics), self.engine)

    async def events(self, topics: Sequence[str], version: str = "") -> AsyncIterator[bytes]:
        """The stream of one page, in the form of server-sent events. `version`: the numbers of its topics when it was
        made; what has changed since is told at once."""
        subscriber = Subscriber(topics)
        self._add(subscriber)
        try:
            yield b"retry: 1000\n\n" + _event("engine", self.engine)
            if version and version != "-".join(str(self._numbers.get(topic, 0)) for topic in topics):
                yield _event("changed", sorted(topics))
            while not self._ended.is_set():
                try:
                    await asyncio.wait_for(subscriber.wake.wait(), _ALIVE_SECONDS)
                except TimeoutError:
                    yield _event("engine", self.engine)
                    continue
                subscriber.wake.clear()
                changed, subscriber.changed = subscriber.changed, set()
                news, subscriber.news = subscriber.news, None
                if news is not None:
                    yield _event("engine", news)
                if changed:
                    yield _event("changed", sorted(changed))
        finally:
            self._remove(subscriber)

    @property
    def watched(self) -> frozenset[str]:
        """The topics of all pages that are open."""
        with self._lock:
            return frozenset(topic for each in self._subscribers for topic in each.topics)

    def close(self) -> None:
        """End all streams."""
        self._ended.set()
        with self._lock:
            for subscriber, loop in self._subscribers.items():
                loop.call_soon_threadsafe(subscriber.wake.set)

    # -- the look ------------------------------------------------------------------------------------------------------

    def _add(self, subscriber: Subscriber) -> None:
        with self._lock:
            self._subscribers[subscriber] = asyncio.get_running_loop()
            if self._thread is None:
                self._thread = threading.Thread(target=self._go_on, name="feed", daemon=True)
                self._thread.start()

    def _remove(self, subscriber: Subscriber) -> None:
        with self._lock:
            self._subscribers.pop(subscriber, None)

    def _go_on(self) -> None:
        while not self._ended.wait(self._poll_seconds):
            with self._lock:
                if not self._subscribers:
                    self._thread = None
                    return
            with self._looking:
                self._look()
            self._beside()

    def _look(self) -> None:
        """Look, and tell what has changed. Never raises: the page says what is wrong."""
        self.looks += 1
        try:
            look = self._look_once()
        except Exception as error:
            # whatever it is, it is said on the page and tried again
            own = error if is_own_fault(error) else None
            log.warning("the database cannot be read for the pages: %s", error, exc_info=own)
            with self._lock:
                said = f"the metadata database cannot be read: {type(error).__name__}"
                self._tell(set(), EngineNews("database", said))
            return
        finally:
            self._looked_at = self._clock.monotonic()
        before, self._seen = self._seen, look.topics
        changed = {topic for topic in before.keys() | look.topics.keys() if before.get(topic) != look.topics.get(topic)}
        with self._lock:
            self._tell(changed, EngineNews(look.engine, look.sentence))

    def _tell(self, changed: set[str], news: EngineNews) -> None:
        """Have those told whom it concerns. To be called with the lock."""
        for topic in changed:
            self._numbers[topic] = self._numbers.get(topic, 0) + 1
        engine_changed = news != self.engine
        self.engine = news
        for subscriber, loop in self._subscribers.items():
            mine = changed & subscriber.topics
            if mine or engine_changed:
                loop.call_soon_threadsafe(_hand_over, subscriber, mine, news if engine_changed else None)


def _hand_over(subscriber: Subscriber, changed: set[str], news: EngineNews | None) -> None:
    subscriber.changed |= changed
    subscriber.news = news or subscriber.news
    subscriber.wake.set()


def _event(name: str, data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
