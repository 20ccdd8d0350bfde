"""The first requests of docs/rest.md are answered as the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests import documents
from tests.support.rest import rest_api

_REQUEST = re.compile(r"^\$ curl (?P<options>.*?)\$B(?P<path>\S+)(?:.* -d '(?P<body>.*)')?$")


def requests_of(page: str) -> list[tuple[str, str, Any, str]]:
    """Method, path, body and answer of each."""
    block = page.partition("## First requests")[2].partition("```\n")[2].partition("```")[0]
    found: list[tuple[str, str, Any, str]] = []
    for line in block.splitlines():
        said = _REQUEST.match(line)
        if said:
            method = "POST" if "-X POST" in said["options"] else "GET"
            found.append((method, said["path"], json.loads(said["body"]) if said["body"] else None, ""))
        elif found:
            method, path, body, answer = found[-1]
            found[-1] = (method, path, body, answer + line)
    return found


def test_first_requests_have_the_keys_that_the_page_shows(tmp_path: Path) -> None:
    asked = requests_of((documents.ROOT / "docs" / "rest.md").read_text(encoding="utf-8"))
    assert len(asked) == 5
    with rest_api(tmp_path) as rest:
        for method, path, body, shown in asked:
            if path.endswith("/wait"):
                continue  # no engine is here, which would end the run
            answer = rest.ask(method, path.replace("/example", "/flights"), body)
            keys = set(re.findall(r'"(\w+)":', shown))
            assert answer.status == (404 if "exampel" in path else 200), (path, answer)
            assert keys <= set(re.findall(r'"(\w+)":', json.dumps(answer.body, separators=(",", ":")))), path
