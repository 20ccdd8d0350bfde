"""Being told to stop, in processes of their own: what is raised, when, and how often."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGINNING = """
import os, signal, time
from trainflow.task_signals import TaskTerminated, TaskTimeout
from trainflow.execution.stop_signal import StopSignal, time_limit

def say(*words):
    print(*words, flush=True)

def send(number):
    os.kill(os.getpid(), number)

def wait(seconds=200.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)

stop = StopSignal(grace_seconds=0.2)
stop.install()
"""


def said(script: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", BEGINNING + script], capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


CASES = {
    "sigterm interrupts what does not hold it": (
        """
try:
    with stop.interrupting():
        send(signal.SIGTERM)
        wait()
except TaskTerminated as error:
    say(error)
say(stop.received)
""",
        ["told to stop (SIGTERM)", "True"],
    ),
    "once": (
        """
try:
    with stop.interrupting():
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGTERM); send(signal.SIGINT)
            say("cleaned up")
except TaskTerminated as error:
    say(error)
""",
        ["cleaned up", "told to stop (SIGTERM)"],
    ),
    "outside it is only remembered": (
        """
send(signal.SIGTERM)
say(stop.received)
try:
    with stop.interrupting():
        say("never")
except TaskTerminated:
    say("raised")
""",
        ["True", "raised"],
    ),
    "who holds it is told and goes on": (
        """
with stop.interrupting():
    stop.hold(lambda: say("told"))
    say(stop.received)
    send(signal.SIGTERM)
    send(signal.SIGTERM)
    say(stop.received)
""",
        ["False", "told", "True"],
    ),
    "but not for ever": (
        """
began = time.monotonic()
try:
    with stop.interrupting():
        stop.hold()
        send(signal.SIGTERM)
        wait()
except TaskTerminated as error:
    say(error)
say(0.1 < time.monotonic() - began < 200)
""",
        ["told to stop (SIGTERM), and did not within the grace", "True"],
    ),
    "not waited for: at once, also when it is held": (
        """
try:
    with stop.interrupting():
        stop.hold(lambda: say("never"))
        send(signal.SIGINT)
        wait()
except TaskTerminated as error:
    say(error)
say(stop.received)
""",
        ["it is not waited for any more (SIGINT)", "True"],
    ),
    "not waited for any more after it was told to save": (
        """
try:
    with stop.interrupting():
        stop.hold(lambda: say("told"))
        send(signal.SIGTERM)
        send(signal.SIGINT)
        wait()
except TaskTerminated as error:
    say(error)
""",
        ["told", "it is not waited for any more (SIGINT)"],
    ),
    "released too late": (
        """
try:
    with stop.interrupting():
        stop.hold()
        send(signal.SIGTERM)
        stop.release()
        say("never")
except TaskTerminated as error:
    say(error)
""",
        ["told to stop (SIGTERM)"],
    ),
    "released in time": (
        """
with stop.interrupting():
    stop.hold()
    stop.release()
    say("goes on")
    try:
        send(signal.SIGTERM)
        wait()
    except TaskTerminated:
        say("interrupted")
""",
        ["goes on", "interrupted"],
    ),
    "a time-out that comes first stays": (
        """
try:
    with stop.interrupting(), time_limit(0.01):
        stop.hold()
        send(signal.SIGTERM)
        wait()
except TaskTimeout as error:
    say(error)
""",
        ["execution_timeout: the task took longer than 0.01 s"],
    ),
    "a time-out that is swallowed is one all the same": (
        """
for swallowed in (BaseException, TaskTimeout):
    try:
        with stop.interrupting(), time_limit(0.01):
            try:
                wait()
            except swallowed:
                say("swallowed")
                if swallowed is TaskTimeout:
                    raise ValueError("something else")
    except TaskTimeout as error:
        say(error)
""",
        ["swallowed", "execution_timeout: the task took longer than 0.01 s"] * 2,
    ),
    "a time-out passes by those who catch every error": (
        """
try:
    with stop.interrupting(), time_limit(0.01):
        try:
            wait()
        except Exception:
            say("never said")
except TaskTimeout:
    say("told")
""",
        ["told"],
    ),
    "a time-out counts what lies behind": (
        """
for spent in (0.5, 0.99, 1.0, 3600.0):
    try:
        with stop.interrupting(), time_limit(1.0, spent=spent):
            wait()
    except TaskTimeout as error:
        say(error)
""",
        ["execution_timeout: the task took longer than 1 s, its waits included"] * 4,
    ),
    "a time-out that comes later does not give more time": (
        """
try:
    with stop.interrupting(), time_limit(3600):
        stop.hold()
        send(signal.SIGTERM)
        wait()
except TaskTerminated as error:
    say(error)
""",
        ["told to stop (SIGTERM), and did not within the grace"],
    ),
    "what comes after the end is not interrupted": (
        """
with stop.interrupting():
    stop.hold()
    send(signal.SIGTERM)
wait(0.3)
say("reported")
""",
        ["reported"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_stop_signal_is_raised_as_case_says(case: str) -> None:
    script, expected = CASES[case]
    assert said(script) == expected
