"""One session: a person works in a project, everything is put right, and the judge looks at what came of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.people.commands import Commands, Ended, Running
from tests.people.deeds import DEEDS, Deed
from tests.people.layout import NAME, Layout
from tests.people.replay import Judge
from tests.people.words import problems_of

COMMAND = Path(sys.executable).with_name("trainflow")
_WITHOUT_PANDAS = Path(__file__).parents[1] / "support" / "without_pandas"
#: a disturbed chain needs some starts to come to its end: one that was stopped by a gate, by samples, by a kill
_MOST_STARTS = 12


class Session:
    """A person in a project.

    `pause`: seconds after each batch of the training. `planted`: the text of a sitecustomize for all processes of it.
    `megabytes`: of a disk of its own, which can be filled; needs root. `package`: the package that is installed; a copy
    of it is used, so that it can be upgraded.
    """

    def __init__(
        self,
        folder: Path,
        seed: str,
        *,
        days: int = 8,
        pause: float = 0.01,
        planted: str = "",
        megabytes: int = 0,
        package: Path | None = None,
    ) -> None:
        self.random = Random(seed)
        self.folder = folder
        self.disk = _mount(folder / "disk", megabytes) if megabytes else None
        self.layout = Layout((self.disk or folder) / "project", days, shuffle=self.random.random() < 0.3, pause=pause)
        self._packages = folder / "packages"
        self._packages.mkdir()
        if planted:
            (self._packages / "sitecustomize.py").write_text(planted)
        self._versions = 0
        if package is not None:
            shutil.copytree(package, self._packages / "trainflow", ignore=shutil.ignore_patterns("__pycache__"))
        self._can_upgrade = package is not None
        environ = {"PYTHONPATH": f"{self._packages}:{_WITHOUT_PANDAS}", "TRAINFLOW__API__ENABLED": "false"}
        self.commands = Commands(COMMAND, folder / "commands", environ)
        self.running: list[Running] = []
        self.branches = ["main"]
        self.copies: list[Path] = []
        self.found: list[str] = []
        self.said: list[Ended] = []
        self.done: Counter[str] = Counter()

    # -- what deeds use ------------------------------------------------------------------------------------------------

    def run(self, *words: str, at: Path | None = None) -> Ended:
        """A command to its end, and what is wrong with what it said."""
        return self._hear(self.commands.run(*words, at=at or self.layout.root))

    def begin(self, *words: str, at: Path | None = None) -> None:
        """A command in a terminal of its own."""
        self.running.append(self.commands.begin(*words, at=at or self.layout.root))

    def strike(self) -> None:
        """Something is done to what runs: it may end by that."""
        for running in self.running:
            running.struck = True

    def numbers(self) -> list[int]:
        """The checkpoints whose files are kept, as a person reads them."""
        ended = self.run("checkpoints", "list", NAME, "--json")
        return [each["number"] for each in json.loads(ended.output)] if ended.code == 0 else []

    def runs(self) -> list[str]:
        """The numbers of the runs there are, newest first."""
        ended = self.run("runs", "list", NAME, "--json")
        return [str(each["number"]) for each in json.loads(ended.output)] if ended.code == 0 else []

    def wait_for_work(self, seconds: float = 30.0) -> bool:
        """Wait until an attempt has trained on some rows, saved that, and is not done; False when none does."""
        until = time.monotonic() + seconds
        before = self._written()
        while time.monotonic() < until and self.commands.processes():
            grown = [path for path, size in self._written().items() if size > before.get(path, 0)]
            texts = [path.read_bytes() for path in grown]
            if any(text.count(b'"rows"') > 1 and b'"done"' not in text for text in texts):
                return True
            time.sleep(0.005)
        return False

    def _written(self) -> dict[Path, int]:
        """How much is in each diary."""
        return {path: path.stat().st_size for path in (self.layout.root / "diary").iterdir()}

    def upgrade(self) -> None:
        """Put another version over the package, file by file as installers do."""
        if not self._can_upgrade:
            return
        self._versions += 1
        package = self._packages / "trainflow"
        init = package / "__init__.py"
        lines = init.read_text().splitlines()
        new = [f'__version__ = "0.1.{self._versions}"' if line.startswith("__version__") else line for line in lines]
        shutil.rmtree(package / "__pycache__", ignore_errors=True)
        for path in sorted(package.rglob("*.py")):
            text = "\n".join(new) + "\n" if path == init else path.read_text()
            path.unlink()
            path.write_text(text)

    # -- the session ---------------------------------------------------------------------------------------------------

    def drawn(self, count: int) -> list[Deed]:
        """So many deeds, by their weights."""
        return self.random.choices(DEEDS, [each.weight for each in DEEDS], k=count)

    def play(self, deeds: Iterable[Deed]) -> list[str]:
        """Do these deeds, put everything right, and say what is wrong."""
        for day in range(3):
            self.layout.publish(day)
        for deed in deeds:
            deed.do(self)
            self.done[deed.name] += 1
            self._collect()
        self._put_right()
        for branch in self.branches:
            self._finish(branch)
        self.found += self.judge().problems()
        self._compare_audits()
        left = self.commands.wait_until_quiet()
        if left:
            self.found.append(f"processes outlive everything: {left}")
        return self.found

    def judge(self) -> Judge:
        """The judge of what is there now."""
        return Judge(self.layout.root, days=self.layout.days, shuffle=self.layout.shuffle)

    def close(self) -> None:
        """End everything of it. What lay on a disk of its own stays where something was found."""
        self.commands.kill_everything()
        if self.disk is not None:
            if self.found:
                shutil.copytree(self.disk, self.disk.with_name("left"), symlinks=True)
            subprocess.run(["umount", "-l", str(self.disk)], capture_output=True, check=False)

    def _hear(self, ended: Ended) -> Ended:
        self.said.append(ended)
        self.found += problems_of(ended)
        return ended

    def _collect(self) -> None:
        for running in [each for each in self.running if each.ended]:
            self.running.remove(running)
            self._hear(running.wait())

    def _put_right(self) -> None:
        layout = self.layout
        layout.gate = "rows is finite"
        layout.write_pipeline()
        for day in range(layout.days):
            if day not in layout.editions:
                layout.publish(day)

    def _finish(self, branch: str) -> None:
        """Start until it says that it is caught up, and repair what was left out."""
        of = () if branch == "main" else ("--branch", branch)
        last: Ended | None = None
        for _ in range(_MOST_STARTS):
            last = self.run("start", NAME, "--plain", *of)
            if last.code == 0:
                break
            if "trainflow resume" in last.output:
                self.run("resume", NAME, "--accept", "--no-start", *of)
            time.sleep(0.2)
        else:
            self.found.append(f"branch {branch} is not caught up after {_MOST_STARTS} starts: {last}")
            return
        for running in self.running:
            self._hear(running.wait())
        self.running.clear()
        if any("never trained" in each for each in self.judge().problems()):
            self.run("repair", NAME, "--skipped", "--plain", *of)

    def _compare_audits(self) -> None:
        """The audit, which is the program's own judge, has to say what this one says."""
        if self.layout.republished != "ignore":
            return
        for branch in self.branches:
            ended = self.run("audit", NAME, *(() if branch == "main" else ("--branch", branch)))
            wrong = [problem for problem in self.judge().problems(complete=False) if problem.startswith(f"{branch}:")]
            if bool(ended.code) != bool(wrong):
                self.found.append(f"the audit of {branch} says {ended.code}, the judge {len(wrong)}: {ended.output}")


def _mount(folder: Path, megabytes: int) -> Path | None:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    with suppress(OSError):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return folder
    return None
