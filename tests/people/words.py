"""Judge what a command printed: the exit code, and whether a person who reads it knows what to do."""

from __future__ import annotations

import re
import signal

from tests.people.commands import Ended

_CODES = (0, 1, 2, 130)
#: what no person should have to read
_INTERNAL = (
    "Traceback (most recent call last)",
    " object at 0x",
    "sqlalchemy",
    "OperationalError",
    "IntegrityError",
    "msgspec",
    "KeyError",
    "AttributeError",
    "TypeError",
    "AssertionError",
    "Errno",
    "refused to write an entry",
)
#: a refusal says what to do by one of these: a command, an option, a file to look at, or what is allowed
_ADVICE = re.compile(
    r"trainflow [a-z]|--[a-z]|\.ya?ml|\.toml|\.log|allowed|choose|use |first\b|wait|again|instead|look at"
    r"|there (is|are)|nothing|already|only|did you mean|missing|cannot be|its newest|[Cc]lear|decide|correct|give|set "
)
#: what Python reads before the command can catch anything
_FIRST_FILES = {"__init__.py", "bootstrap.py", "cli/__init__.py", "cli/entry.py"}
_OWN_FILE = re.compile(r'File "[^"]*/trainflow/([^"]*\.py)"')


def problems_of(ended: Ended) -> list[str]:
    """What is wrong with a command that has ended."""
    command = f"'trainflow {' '.join(ended.words)}'"
    if ended.code is None:
        return [f"{command} hangs: {_end(ended.output)}"]
    if _is_interrupted_before_it_began(ended):
        return []
    found = [f"{command} shows {word!r}: {_end(ended.output)}" for word in _INTERNAL if word in ended.output]
    if ended.code < 0:
        return found if ended.struck else [*found, f"{command} died of signal {-ended.code}"]
    if ended.code not in _CODES:
        found.append(f"{command} ended with {ended.code}: {_end(ended.output)}")
    if ended.code in (1, 2) and not _ADVICE.search(ended.output):
        found.append(f"{command} ended with {ended.code} and does not say what to do: {_end(ended.output)}")
    return found


def _is_interrupted_before_it_began(ended: Ended) -> bool:
    """Whether Ctrl-C came while Python looked for the command: nothing of its own could say anything else then."""
    files = set(_OWN_FILE.findall(ended.output))
    is_interrupted = ended.output.rstrip().endswith("\nKeyboardInterrupt") and ended.code == -signal.SIGINT
    return ended.struck and is_interrupted and files <= _FIRST_FILES


def _end(output: str) -> str:
    return output[-1500:].strip() or "(it printed nothing)"
