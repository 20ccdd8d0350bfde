"""What part of a file a request asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.messages.byte_ranges import file_part

TAG = '"sha256:abc"'


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=0-3", 206, "0-3"),
        ("bytes=4-", 206, "4-9"),
        ("bytes=9-9", 206, "9-9"),
        ("bytes=4-100", 206, "4-9"),
        ("bytes=-3", 206, "7-9"),
        ("bytes=-100", 206, "0-9"),
        ("Bytes=0-0", 206, "0-0"),
        ("bytes=10-", 416, "*"),
        ("bytes=10-20", 416, "*"),
        ("bytes=-0", 416, "*"),
        # not understood, several, another unit: all of it
        ("bytes=4-3", 200, None),
        ("bytes=0-1,4-5", 200, None),
        ("bytes=-", 200, None),
        ("bytes=a-b", 200, None),
        ("bytes", 200, None),
        ("rows=0-3", 200, None),
        ("bytes=" + "9" * 30 + "-", 200, None),
        ("bytes=٤-", 200, None),
        ("", 200, None),
    ],
)
def test_range_is_answered_as_the_rfc_has_it(asked: str, status: int, content: str | None) -> None:
    found = file_part(10, TAG, {"range": asked})
    assert found.status == status
    assert found.headers.get("content-range") == (None if content is None else f"bytes {content}/10")
    assert (found.headers["accept-ranges"], found.headers["etag"]) == ("bytes", TAG)
    if status != 416:
        assert int(found.headers["content-length"]) == found.end - found.start


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if-range": TAG}, 206),
        ({"if-range": '"other"'}, 200),
        ({"if-range": f"W/{TAG}"}, 200),
        ({"if-range": "Mon, 01 Jan 2026 00:00:00 GMT"}, 200),
        ({"if-none-match": TAG}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"other"'}, 206),
    ],
)
def test_range_is_sent_of_the_content_that_is_meant(headers: dict[str, str], status: int) -> None:
    assert file_part(10, TAG, {"range": "bytes=2-", **headers}).status == status


def test_file_that_grows_has_no_tag_and_parts_all_the_same() -> None:
    assert file_part(10, None, {"range": "bytes=2-"}).status == 206
    assert "etag" not in file_part(10, None, {"range": "bytes=2-"}).headers
    assert file_part(10, None, {"range": "bytes=2-", "if-range": TAG}).status == 200
    assert file_part(10, None, {"if-none-match": "*"}).status == 200


def test_head_and_empty_files_have_no_part() -> None:
    assert file_part(10, TAG, {"range": "bytes=2-"}, method="HEAD").status == 200
    assert file_part(0, TAG, {}).headers["content-length"] == "0"
    assert file_part(0, TAG, {"range": "bytes=0-"}).status == 416
    assert file_part(0, TAG, {"range": "bytes=-5"}).status == 416


@given(st.integers(0, 50), st.integers(0, 60), st.none() | st.integers(0, 60))
def test_parts_are_what_slices_are(size: int, first: int, last: int | None) -> None:
    data = bytes(range(size))
    found = file_part(size, TAG, {"range": f"bytes={first}-{'' if last is None else last}"})
    if last is not None and last < first:
        assert (found.start, found.end) == (0, size)
    elif first >= size:
        assert found.status == 416
    else:
        assert data[found.start : found.end] == data[first : None if last is None else last + 1]
