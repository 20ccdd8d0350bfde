"""Counts of requests to stores: what adds up, and how Prometheus reads it."""

from __future__ import annotations

import os

import pytest

from trainflow.observability.store_requests import BOUNDS, StoreRequests, StoreUse, summed, totals


def kind_of(error: BaseException) -> str | None:
    return None if isinstance(error, FileNotFoundError) else "denied"


@pytest.fixture
def requests() -> StoreRequests:
    """The second call takes 0.02 s, the others none."""
    moments = iter([0.0, 0.0, 1.0, 1.02, *[2.0] * 100])
    return StoreRequests(lambda: next(moments))


def test_calls_are_counted_by_store_and_kind(requests: StoreRequests) -> None:
    with requests.call("s3://a", "read", kind_of) as made:
        made.received = 5
    with requests.call("s3://a", "read", kind_of, sent=1) as made:
        made.requests = 3
    with pytest.raises(PermissionError), requests.call("s3://a", "list", kind_of):
        raise PermissionError
    with pytest.raises(FileNotFoundError), requests.call("s3://b", "read", kind_of):
        raise FileNotFoundError
    in_bound = [0] * (len(BOUNDS) + 1)
    listed, read, other = requests.take()
    assert (listed.op, listed.errors) == ("list", {"denied": 1})
    assert read == StoreUse("s3://a", "read", 4, 1, 5, 0.02, (1, 0, 1, *in_bound[3:]))
    assert (other.store, other.requests, other.errors) == ("s3://b", 1, {})
    assert requests.use() == []


def test_sum_is_of_each_store_and_kind_and_totals_are_of_all() -> None:
    one = StoreUse("s3://a", "read", 2, 0, 7, 0.5, (1, 1), {"denied": 1})
    two = StoreUse("s3://a", "read", 1, 0, 3, 0.25, (0, 1), {"denied": 1, "other": 2})
    three = StoreUse("s3://a", "create", 4, 9)
    four = StoreUse("s3://a", "delete", 5)
    assert summed([one, three, two]) == [
        three,
        StoreUse("s3://a", "read", 3, 0, 10, 0.75, (1, 2), {"denied": 2, "other": 2}),
    ]
    found = totals([one, two, three, four])
    assert (found.requests, found.writes, found.reads, found.deletes) == (12, 4, 3, 5)
    assert (found.bytes_sent, found.bytes_received, found.seconds, found.errors) == (9, 10, 0.75, 4)


def test_forked_process_begins_with_nothing() -> None:
    from trainflow.observability.store_requests import REQUESTS

    with REQUESTS.call("s3://a", "read", kind_of):
        pass
    pid = os.fork()
    if pid == 0:
        os._exit(len(REQUESTS.use()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert REQUESTS.take()
