"""Which trigger ends or blocks the event loop."""

from __future__ import annotations

import pytest

from trainflow.triggerer.crash_causes import MOST_ENDS, Blame, CrashCause, End, Verdict

ALL = frozenset({1, 2, 3, 4})


@pytest.mark.parametrize(
    ("cause", "running", "apart"),
    [
        (CrashCause.ITSELF, (2, 0), {2}),
        (CrashCause.ITSELF, (0, 3), {3}),
        (CrashCause.ITSELF, (2, 3), {2, 3}),
        (CrashCause.ITSELF, (1, 2, 3, 4), {1, 2}),
        (CrashCause.ITSELF, (9, 0), set()),
        (CrashCause.ITSELF, (0, 0), set()),
        (CrashCause.STALLED, (2, 3), {2}),
        (CrashCause.STALLED, (0, 3), {3}),
        (CrashCause.STALLED, (0, 0), set()),
        (CrashCause.OUT_OF_MEMORY, (0, 3), {3}),
        (CrashCause.OUT_OF_MEMORY, (0, 0), set()),
        (CrashCause.KILLED, (2, 3), {2}),
        (CrashCause.KILLED, (0, 3), set()),
        (CrashCause.KILLED, (0, 0), set()),
    ],
)
def test_judge_first_end_parts_what_ran_and_fails_none(
    cause: CrashCause, running: tuple[int, ...], apart: set[int]
) -> None:
    assert Blame().judge(End(cause, ALL, running)) == Verdict(None, frozenset(apart))


@pytest.mark.parametrize("cause", [CrashCause.ITSELF, CrashCause.STALLED])
def test_judge_nothing_noted_halves_until_one_is_left(cause: CrashCause) -> None:
    blame, watched, culprit, ends = Blame(), frozenset(range(1, 1025)), 700, 0
    failed = None
    while failed is None:
        verdict = blame.judge(End(cause, watched))
        ends += 1
        failed = verdict.failed
        watched = verdict.apart if culprit in verdict.apart else watched - verdict.apart
    assert failed == culprit
    assert ends == 1 + 10 + MOST_ENDS


@pytest.mark.parametrize("cause", [CrashCause.KILLED, CrashCause.OUT_OF_MEMORY])
def test_judge_killed_from_outside_again_and_again_fails_none(cause: CrashCause) -> None:
    blame = Blame()
    assert {blame.judge(End(cause, frozenset({1}))) for _ in range(100)} == {Verdict()}


def test_judge_several_culprits_at_once_finds_each() -> None:
    blame, loops, culprits, failed = Blame(), [frozenset(range(1, 65))], {5, 6, 40}, set()
    for _ in range(60):
        dies = next((each for each in loops if each & culprits), None)
        if dies is None:
            break
        verdict = blame.judge(End(CrashCause.ITSELF, dies))
        loops.remove(dies)
        failed |= {verdict.failed} - {None}
        culprits -= {verdict.failed}
        loops += [each - {verdict.failed} for each in (verdict.apart, dies - verdict.apart) if each - {verdict.failed}]
    assert failed == {5, 6, 40}


def test_forget_wait_that_is_over_is_suspected_no_more() -> None:
    blame = Blame()
    for _ in range(MOST_ENDS - 1):
        blame.judge(End(CrashCause.ITSELF, ALL, (2,)))
    blame.forget([2])
    assert blame.judge(End(CrashCause.ITSELF, ALL, (2,))).failed is None
