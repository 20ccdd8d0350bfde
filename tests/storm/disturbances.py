"""What happens to machines and samples, done to a project on purpose."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from random import Random

from tests.support.live_project import LiveProject
from trainflow.testing.processes import Found, ProcessKind

_CLOCK = '''\
"""Give every process of the project the clock of a host that is wrong by what a file says, in seconds."""

import os
from datetime import timedelta

from trainflow import clock

right = clock.SystemClock.now


def now(self):
    try:
        with open(os.environ["STORM_CLOCK"]) as file:
            seconds = float(file.read() or 0)
    except (OSError, ValueError, KeyError):
        seconds = 0.0
    return right(self) + timedelta(seconds=seconds)


clock.SystemClock.now = now
'''


class Disturbance(ABC):
    """One thing that can happen. `strike` does it; `calm` undoes what lasts, at the latest when the storm is over."""

    name: str

    @abstractmethod
    def strike(self, project: LiveProject, random: Random) -> bool:
        """Do it; False when there was nothing to do it to."""

    def calm(self, now: float) -> None:  # noqa: B027 - most things are over when they have happened
        """End what has lasted long enough at `now` (monotonic seconds; infinity: end all of it)."""


class Kill(Disturbance):
    """kill -9 of one process."""

    name = "kill"

    def strike(self, project: LiveProject, random: Random) -> bool:
        kind = random.choice(
            [ProcessKind.COMMAND, ProcessKind.WARM_WORKER, ProcessKind.CHILD, ProcessKind.CHILD, ProcessKind.EVENT_LOOP]
        )
        victims = project.processes(kind)
        return bool(victims) and random.choice(victims).kill()


class PowerCut(Disturbance):
    """kill -9 of everything, and now and then the loss of the home with its database."""

    name = "power cut"

    def strike(self, project: LiveProject, random: Random) -> bool:
        project.kill_everything()
        if random.random() < 0.3:
            for path in list(project.home.path.iterdir()) if project.home.path.exists() else []:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return True


class Freeze(Disturbance):
    """SIGSTOP of one process, SIGCONT up to four seconds later."""

    name = "freeze"

    def __init__(self) -> None:
        self._frozen: list[tuple[float, Found]] = []

    def strike(self, project: LiveProject, random: Random) -> bool:
        victims = project.processes()
        if not victims:
            return False
        victim = random.choice(victims)
        if not victim.kill(signal.SIGSTOP):
            return False
        self._frozen.append((time.monotonic() + random.uniform(0.05, 4.0), victim))
        return True

    def calm(self, now: float) -> None:
        for due, victim in [each for each in self._frozen if each[0] <= now]:
            victim.kill(signal.SIGCONT)
            self._frozen.remove((due, victim))


class ClockJump(Disturbance):
    """Set the clock of the project's host forward or back by up to two days."""

    name = "clock jump"

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(_CLOCK)
        self._folder = folder

    def environment(self, project: LiveProject) -> dict[str, str]:
        """What processes of the project are started with."""
        return {"PYTHONPATH": str(self._folder), "STORM_CLOCK": str(self._offset(project))}

    def strike(self, project: LiveProject, random: Random) -> bool:
        seconds = random.choice([-172_800, -86_400, -3_600, -40, -5, 0, 5, 40, 3_600, 86_400])
        file = self._offset(project)
        written = file.with_suffix(".new")
        written.write_text(str(seconds))
        written.replace(file)
        return True

    def _offset(self, project: LiveProject) -> Path:
        return self._folder / f"{project.root.name}.clock"


class FullDisk(Disturbance):
    """Fill the disk that the home and the checkpoints lie on, for up to two seconds. Needs root: mounts a tmpfs."""

    name = "full disk"
    mounted = False

    def __init__(self, disk: Path, megabytes: int = 64) -> None:
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)]
        # OSError: there is no mount
        with contextlib.suppress(OSError):
            self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        self._ballast = disk / "ballast"
        self.folder = disk
        self._until: float | None = None

    def strike(self, project: LiveProject, random: Random) -> bool:
        if not self.mounted or self._until is not None:
            return False
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * (1 << 16))
        self._until = time.monotonic() + random.uniform(0.1, 2.0)
        return True

    def calm(self, now: float) -> None:
        if self._until is not None and self._until <= now:
            self._ballast.unlink(missing_ok=True)
            self._until = None

    def close(self) -> None:
        """Give the disk back."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)


class TouchSamples(Disturbance):
    """Give every sample file the time of now, as a copy to another disk does. Must change nothing."""

    name = "touch"

    def __init__(self, samples: Path) -> None:
        self._samples = samples

    def strike(self, project: LiveProject, random: Random) -> bool:
        for path in self._samples.glob("*/*.parquet"):
            with contextlib.suppress(OSError):
                os.utime(path)
        return True
