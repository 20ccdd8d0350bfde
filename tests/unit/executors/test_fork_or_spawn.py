"""Which attempts are forked, and what is to blame when warm workers die."""

from __future__ import annotations

import pytest

from trainflow.executors.fork_or_spawn import DISTRUSTED_DEATHS, HOPELESS_DEATHS, CrashHistory, may_fork


def died_at(blame: CrashHistory, path: str | None, times: int) -> CrashHistory:
    for _ in range(times):
        blame.died(at=path)
    return blame


def test_crash_policy_file_killing_workers_repeatedly_is_distrusted() -> None:
    blame = died_at(CrashHistory(), "a.py", DISTRUSTED_DEATHS - 1)
    assert not blame.distrusts("a.py")
    blame.died(at="a.py")
    assert blame.distrusts("a.py")
    assert not blame.distrusts("b.py")
    assert not died_at(blame, "a.py", HOPELESS_DEATHS).hopeless


def test_file_that_was_got_through_or_changed_is_trusted_again() -> None:
    blame = died_at(CrashHistory(), "a.py", DISTRUSTED_DEATHS)
    blame.launched("b.py")
    assert blame.distrusts("a.py")
    blame.launched("a.py")
    assert not blame.distrusts("a.py")
    died_at(blame, "a.py", DISTRUSTED_DEATHS).files_changed()
    assert not blame.distrusts("a.py")


def test_crash_policy_idle_deaths_are_hopeless_until_launch() -> None:
    blame = died_at(CrashHistory(), None, HOPELESS_DEATHS)
    assert not blame.hopeless
    blame.died(at=None)
    assert blame.hopeless
    blame.launched(None)
    assert not blame.hopeless


@pytest.mark.parametrize(
    ("threaded", "as_set", "alone", "forks"),
    [
        (["b.py"], True, False, True),
        (["a.py"], True, False, False),
        ([None], True, False, False),
        ([], False, False, False),
        ([], True, True, False),
    ],
)
def test_attempt_is_forked_unless_settings_its_file_or_a_hang_forbid(
    threaded: list[str | None], as_set: bool, alone: bool, forks: bool
) -> None:
    history = CrashHistory()
    for path in threaded:
        history.threads(path)
    assert may_fork("a.py", history, as_set=as_set, alone=alone) is forks
