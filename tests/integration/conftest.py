"""Services the integration tests share, started once and only when a test asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trainflow.testing.local_s3 import LocalS3, local_s3


@pytest.fixture(scope="session")
def s3() -> Iterator[LocalS3]:
    with local_s3() as server:
        yield server
