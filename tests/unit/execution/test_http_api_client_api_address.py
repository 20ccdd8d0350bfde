"""Connections to an API server that are kept for the next request."""

from __future__ import annotations

import http.client

from trainflow.execution.http_api_client import _MOST_KEPT, ApiAddress


class Connection(http.client.HTTPConnection):
    """Remembers that it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_connection_that_was_kept_is_used_again_newest_first() -> None:
    address = ApiAddress("http://127.0.0.1:1")
    assert address.take() is None
    first, second = Connection("127.0.0.1"), Connection("127.0.0.1")
    address.keep(first)
    address.keep(second)
    assert [address.take(), address.take(), address.take()] == [second, first, None]


def test_more_connections_than_are_kept_are_closed_and_hanging_up_closes_the_rest() -> None:
    address = ApiAddress("http://127.0.0.1:1")
    made = [Connection("127.0.0.1") for _ in range(_MOST_KEPT + 2)]
    for connection in made:
        address.keep(connection)
    assert [each.closed for each in made] == [False] * _MOST_KEPT + [True] * 2
    address.hang_up()
    assert all(each.closed for each in made)
    assert address.take() is None
