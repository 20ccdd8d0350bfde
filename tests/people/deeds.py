"""What a person can do, each drawn by its weight.

A deed is told the session and does one thing, or nothing where there is nothing to do it to.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.people.layout import FILE, NAME
from tests.people.replay import Judge

if TYPE_CHECKING:
    from tests.people.session import Session

MOST_BRANCHES = 3


class Deed(NamedTuple):
    """One thing a person does; `weight`: how often, beside the others."""

    name: str
    do: Callable[[Session], None]
    weight: int


def start(session: Session) -> None:
    """Start it somehow, in the background of the session."""
    how = session.random.choice([(NAME,), (FILE,), (str(session.layout.root / FILE),)])
    more = session.random.choice([(), (), ("--plain",), ("--set", "split.partitions=1"), ("--detach",)])
    at = session.random.choice([session.layout.root, session.layout.root, session.layout.root / "pipelines"])
    if how == (FILE,) and at != session.layout.root:
        how = (Path(FILE).name,)
    session.begin("start", *how, *more, at=at)


def start_and_wait(session: Session) -> None:
    """Start it and see it through."""
    session.run("start", NAME)


def rewind_all(session: Session) -> None:
    """Back to the beginning."""
    session.run("checkpoints", "rewind", NAME, "--to", "beginning")


def start_branch(session: Session) -> None:
    """Train one of the branches that were forked."""
    if session.branches[1:]:
        session.begin("start", NAME, "--branch", session.random.choice(session.branches[1:]))


def start_twice(session: Session) -> None:
    """In two terminals at once."""
    for _ in range(2):
        session.begin("start", NAME)


def interrupt(session: Session) -> None:
    """Ctrl-C in a terminal where something runs; sometimes twice."""
    running = [each for each in session.running if not each.ended]
    if running:
        chosen = session.random.choice(running)
        chosen.struck = True
        for _ in range(session.random.choice([1, 1, 2])):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(chosen.process.pid, signal.SIGINT)
            time.sleep(0.05)


def kill(session: Session) -> None:
    """kill -9 of one process."""
    pids = session.commands.processes()
    if pids:
        session.strike()
        with contextlib.suppress(ProcessLookupError):
            os.kill(session.random.choice(pids), signal.SIGKILL)


def kill_at_work(session: Session) -> None:
    """kill -9 of one process while rows are trained on."""
    if session.wait_for_work():
        kill(session)


def cut_at_work(session: Session) -> None:
    """Everything dies while rows are trained on."""
    if session.wait_for_work():
        session.strike()
        session.commands.kill_everything()


def terminate(session: Session) -> None:
    """kill of one process, without -9."""
    pids = session.commands.processes()
    if pids:
        session.strike()
        with contextlib.suppress(ProcessLookupError):
            os.kill(session.random.choice(pids), signal.SIGTERM)


def power_cut(session: Session) -> None:
    """Everything dies at once; sometimes the home is deleted afterwards, as the documentation allows."""
    session.strike()
    session.commands.kill_everything()
    if session.random.random() < 0.4:
        shutil.rmtree(session.layout.root / ".trainflow", ignore_errors=True)


def stop(session: Session) -> None:
    """In good order, or at once."""
    session.strike()
    session.run("stop", *session.random.choice([(), (), ("--now",)]))


def rewind(session: Session) -> None:
    """To a checkpoint or a day; sometimes it is looked at first."""
    numbers = session.numbers()
    day = session.layout.folder(session.random.randrange(1, session.layout.days)).name
    ways = [("--before", day), ("--to", "beginning")]
    ways += [("--to", str(session.random.choice(numbers)))] * 3 if numbers else []
    way = session.random.choice(ways)
    if session.random.random() < 0.5:
        session.run("checkpoints", "rewind", NAME, *way, "--dry-run")
    session.run("checkpoints", "rewind", NAME, *way, "--reason", "a mistake")


def fork(session: Session) -> None:
    """Begin another branch."""
    if len(session.branches) < MOST_BRANCHES and (numbers := session.numbers()):
        branch = f"b{len(session.branches)}"
        ended = session.run(
            "checkpoints", "fork", NAME, "--from", str(session.random.choice(numbers)), "--branch", branch
        )
        if ended.code == 0:
            session.branches.append(branch)


def promote(session: Session) -> None:
    """Give an alias to a checkpoint."""
    if numbers := session.numbers():
        session.run("checkpoints", "promote", NAME, str(session.random.choice(numbers)), "--alias", "champion")


def prune(session: Session) -> None:
    """Delete old files, and what dead attempts left."""
    session.run("checkpoints", "prune", NAME, "--keep-latest", str(session.random.randint(1, 4)))
    session.run("checkpoints", "sweep", NAME, "--grace", session.random.choice(["0s", "1h"]))


def repair(session: Session) -> None:
    """Train what was left out."""
    session.run("repair", NAME, "--plain", *session.random.choice([("--dry-run",), ("--skipped",), ()]))


def resume(session: Session) -> None:
    """Decide about a chain that may be stopped."""
    session.run("resume", NAME, "--plain", *session.random.choice([("--accept",), ("--dry-run",), (), ("--no-start",)]))


def clear(session: Session) -> None:
    """Let a run, or a task of it, run again."""
    if runs := session.runs():
        run, task = session.random.choice(runs), session.random.choice(["checkpoint", "samples", "train", "commit"])
        session.run(*session.random.choice([("tasks", "clear", NAME, run, task), ("runs", "clear", NAME, run)]))


def mark(session: Session) -> None:
    """Say that a task is done, or is not."""
    if runs := session.runs():
        task = session.random.choice(["samples", "train", "commit", "next"])
        how = session.random.choice(["--success", "--failed", "--skipped"])
        session.run("tasks", "mark", NAME, session.random.choice(runs), task, how)


def cancel(session: Session) -> None:
    """End the newest run."""
    if runs := session.runs():
        session.run("runs", "cancel", NAME, runs[0])


def trigger(session: Session) -> None:
    """Queue a run by hand."""
    session.run("runs", "trigger", NAME)


def pause(session: Session) -> None:
    """Pause for a moment."""
    session.run("dags", "pause", NAME)
    time.sleep(0.2)
    session.run("dags", "unpause", NAME)


def edit(session: Session) -> None:
    """Change the pipeline file while it is trained, now and then with a mistake."""
    layout = session.layout
    layout.partitions = session.random.randint(1, 4)
    layout.keep = session.random.randint(2, 5)
    layout.write_pipeline(session.random.choice(["", "", "", "trian: {}\n", "gates: [\n"]))


def tighten_gate(session: Session) -> None:
    """A gate that refuses, until it is loosened again."""
    layout = session.layout
    layout.gate = "rows is finite" if layout.gate != "rows is finite" else "rows <= 40"
    layout.write_pipeline()


def publish(session: Session) -> None:
    """The next day lands, or one before it that was late."""
    missing = [day for day in range(session.layout.days) if day not in session.layout.editions]
    if missing:
        session.layout.publish(session.random.choice(missing[:2]))


def republish(session: Session) -> None:
    """A day is written again: with other values, or with the same."""
    if days := list(session.layout.editions):
        session.layout.publish(session.random.choice(days), again=session.random.random() < 0.3)


def remove(session: Session) -> None:
    """A day is deleted, and comes again later."""
    if days := list(session.layout.editions):
        session.layout.delete(session.random.choice(days))


def touch(session: Session) -> None:
    """The clock of the files of a day is another one."""
    if days := list(session.layout.editions):
        session.layout.touch(session.random.choice(days), session.random.choice([-400_000.0, 1.0, 90_000.0]))


def look(session: Session) -> None:
    """Ask how it is; the answers are for programs, too."""
    words = session.random.choice(
        [
            ("status", "--json"),
            ("why", NAME, "--json"),
            ("plan", NAME, "--json"),
            ("samples", "list", NAME, "--json"),
            ("checkpoints", "list", NAME, "--json"),
            ("checkpoints", "ledger", NAME, "--json"),
            ("audit", NAME, "--json"),
            ("fleet", "--json"),
        ]
    )
    ended = session.run(*words)
    if ended.code == 0:
        try:
            json.loads(ended.output)
        except ValueError:
            session.found.append(f"'trainflow {' '.join(words)}' prints what is no JSON: {ended.output[:300]}")


def mistype(session: Session) -> None:
    """Get it wrong, as people do."""
    words = session.random.choice(
        [
            ("start", "click"),
            ("start",),
            ("start", "pipelines/none.yaml"),
            ("checkpoints", "rewind", NAME, "--to", "999"),
            ("checkpoints", "rewind", NAME),
            ("checkpoints", "show", NAME, "@nobody"),
            ("checkpoints", "fork", NAME, "--from", "999", "--branch", "x"),
            ("checkpoints", "promote", NAME, "999", "--alias", "champion"),
            ("start", NAME, "--branch", "nowhere"),
            ("start", NAME, "--set", "split.partition=3"),
            ("tasks", "clear", NAME, "999", "train"),
            ("resume", NAME, "--accept", "--skip"),
            ("rewind", NAME),
            ("samples", "show", NAME, "2031-01-01"),
        ]
    )
    if session.run(*words).code == 0:
        session.found.append(f"'trainflow {' '.join(words)}' is taken for right")


def wait(session: Session) -> None:
    """Do something else for a moment."""
    time.sleep(session.random.uniform(0.1, 1.5))


def copy_project(session: Session) -> None:
    """cp -r of the whole project, whatever runs in it, and a start in the copy: a project of its own from then on."""
    copy = session.folder / f"copy{len(session.copies)}"
    if session.copies or not (session.layout.root / "checkpoints").is_dir():
        return
    subprocess.run(["cp", "-r", str(session.layout.root), str(copy)], capture_output=True, check=False)
    session.copies.append(copy)
    session.run("status", at=copy)
    before = session.commands.processes(session.layout.root)
    ended = session.run("stop", at=copy)
    after = session.commands.processes(session.layout.root)
    if before and not after and not any(each.struck for each in session.running):
        session.found.append(f"'trainflow stop' in a copy ended what runs in the original: {ended.output}")
    session.run("start", NAME, "--plain", at=copy)
    wrong = Judge(copy, days=session.layout.days, shuffle=session.layout.shuffle).problems(complete=False)
    session.found += [f"in a copy of the running project: {problem}" for problem in wrong]


def fill_disk(session: Session) -> None:
    """The disk is full for a moment."""
    if session.disk is not None:
        ballast = session.disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * (1 << 16))
        session.strike()
        time.sleep(session.random.uniform(0.2, 1.0))
        ballast.unlink()


def upgrade(session: Session) -> None:
    """Another build of the package is installed under what runs."""
    session.upgrade()


def upgrade_at_work(session: Session) -> None:
    """The same while rows are trained on."""
    if session.wait_for_work():
        session.upgrade()


DEEDS = [
    Deed("start", start, 12),
    Deed("start and wait", start_and_wait, 1),
    Deed("rewind all", rewind_all, 1),
    Deed("start a branch", start_branch, 4),
    Deed("start twice", start_twice, 2),
    Deed("Ctrl-C", interrupt, 4),
    Deed("kill -9", kill, 10),
    Deed("kill -9 at work", kill_at_work, 4),
    Deed("power cut at work", cut_at_work, 2),
    Deed("kill", terminate, 3),
    Deed("power cut", power_cut, 2),
    Deed("stop", stop, 2),
    Deed("rewind", rewind, 4),
    Deed("fork", fork, 3),
    Deed("promote", promote, 2),
    Deed("prune", prune, 2),
    Deed("repair", repair, 2),
    Deed("resume", resume, 2),
    Deed("clear", clear, 3),
    Deed("mark", mark, 3),
    Deed("cancel", cancel, 1),
    Deed("trigger", trigger, 2),
    Deed("pause", pause, 1),
    Deed("edit", edit, 4),
    Deed("gate", tighten_gate, 1),
    Deed("publish", publish, 10),
    Deed("publish again", republish, 4),
    Deed("delete samples", remove, 2),
    Deed("touch samples", touch, 2),
    Deed("look", look, 4),
    Deed("mistype", mistype, 3),
    Deed("wait", wait, 6),
    Deed("copy the project", copy_project, 1),
    Deed("full disk", fill_disk, 2),
    Deed("upgrade", upgrade, 1),
    Deed("upgrade at work", upgrade_at_work, 1),
]
