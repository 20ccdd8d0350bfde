"""Templates: a title stands where its column's values do, and no plural is written behind a number."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainflow import pages

TEMPLATES = sorted((Path(pages.__file__).parent / "templates").glob("*.html"))
_TABLE = re.compile(r"<thead>(.*?)</thead>\s*<tbody[^>]*>(.*?)</tr>", re.DOTALL)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_title_of_numbers_is_aligned_as_they_are(template: Path) -> None:
    for head, row in _TABLE.findall(template.read_text()):
        titles = ['class="n"' in each for each in re.findall(r"<th\b[^>]*>", head)]
        values = ['class="n"' in each for each in re.findall(r"<t[dh]\b[^>]*>", row)]
        assert titles == values[: len(titles)], head


_PLURAL = re.compile(
    r"\}\} (partitions|runs|holes|files|checkpoints|deliveries|tasks|entries|attempts|chains|DAGs|rows|slots|ranges)\b"
)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_nouns_behind_numbers_are_counted(template: Path) -> None:
    assert [found[0] for found in _PLURAL.finditer(template.read_text())] == []
