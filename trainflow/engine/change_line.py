"""The line of an engine to the other processes of its database: what one changes, the others hear at once."""

from __future__ import annotations

from collections.abc import Callable

from trainflow.executors.reactor import Reactor
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.change_notices import MAY_QUEUE, ChangeNotices
from trainflow.metadata.database import Database

#: how often a scheduler looks for what others over the same database have left to it; where they tell it, it is only
#: made sure of
_OTHERS_SECONDS, _TOLD_SECONDS = 0.25, 1.0


class ChangeLine:
    """Hears and tells where the database can do that (PostgreSQL); elsewhere nothing, and others are looked for."""

    def __init__(self, database: Database, reactor: Reactor, *, heard: Callable[[AppliedChange | None], None]) -> None:
        """`heard`: called with each change that another process made; None: with what is not known."""
        self._notices = ChangeNotices(database) if ChangeNotices.are_told(database) else None
        self._reactor = reactor
        self._heard = heard

    @property
    def look_seconds(self) -> float:
        """How often it is looked for what others have left."""
        return _TOLD_SECONDS if self._notices is not None and self._notices.is_listening else _OTHERS_SECONDS

    def keep(self) -> None:
        """Listen, where that is not done already. Asked from time to time."""
        if self._notices is not None and not self._notices.is_listening and self._notices.listen():
            self._reactor.watch(self._notices.descriptor, self._hear)

    def _hear(self) -> None:
        assert self._notices is not None
        heard = self._notices.heard()
        if heard is None:
            self._reactor.unwatch(self._notices.descriptor)
        for change in heard or ():
            self._heard(change)

    def tell(self, change: AppliedChange) -> None:
        """Tell all others of a change."""
        if self._notices is not None:
            self._notices.tell(change)

    def tell_left(self) -> None:
        """Tell all others that something waits for them."""
        self.tell(MAY_QUEUE)

    def close(self) -> None:
        """Hear nothing more."""
        if self._notices is not None:
            self._reactor.unwatch(self._notices.descriptor)
            self._notices.close()
