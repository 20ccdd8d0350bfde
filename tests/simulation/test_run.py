"""What is said of histories."""

from __future__ import annotations

from msgspec.structs import replace

from tests.simulation.run import difference, simulate


def test_difference_of_histories_shows_first_event_that_differs() -> None:
    history = simulate(0)
    number = len(history.events) // 2
    event = replace(history.events[number], what="something else")
    other = replace(history, events=(*history.events[:number], event, *history.events[number + 1 :]))

    assert difference(history, history) == ""
    shown = difference(history, other)
    assert f"the same to event {number}:" in shown
    assert f"  one   {history.events[number]}" in shown
    assert f"  other {event}" in shown
