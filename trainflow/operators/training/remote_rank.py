"""A rank on another host, as the process of its attempt follows it: what `ProcessGroup` is to one of its own host."""

from __future__ import annotations

import contextlib
import filecmp
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from trainflow.errors import FailException, ProtocolError
from trainflow.operators.training.rank_connection import (
    Begin,
    Begun,
    FileBegins,
    FolderEnds,
    Message,
    RankConnection,
    RankEnded,
    RankLine,
    RankReads,
    RunRank,
    StopAsked,
    WantFolder,
)
from trainflow.storage.atomic_files import replace_whole

_TAIL_LINES = 20


class RemoteRank:
    """One rank. Its answers lie in the files that its task names, as those of a rank of this host would; what it writes
    into its output folder is kept in `written`."""

    def __init__(
        self,
        link: RankConnection,
        run: RunRank,
        written: Path,
        *,
        on_line: Callable[[str], None],
        on_stop_asked: Callable[[], None],
    ) -> None:
        """`on_line` and `on_stop_asked` are called in the thread that follows it."""
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self.code: int | None = None
        self.out_of_memory = ""
        #: why nothing more is heard of it, where that is how it ended
        self.gone: str | None = None
        #: a file of this host that could not be read or written for it
        self.failed_here: OSError | None = None
        self.written = written
        self._link = link
        self._run = run
        self._on_line = on_line
        self._on_stop_asked = on_stop_asked
        self._told = False
        #: seconds that its clock is ahead of ours
        self._ahead = 0.0
        self._asked = 0.0

    def start(self) -> None:
        """Have it begin. That it is gone is seen when it is followed."""
        self._asked = time.monotonic()
        with contextlib.suppress(OSError):
            self._link.send(Begin())

    def follow(self) -> int:
        """Follow it to its end, in whatever thread; the exit code, -SIGKILL where nothing more is heard of it, or its
        files cannot be dealt with here."""
        code, host, why = None, self._link.other_host, "its connection has ended"
        try:
            while code is None and (message := self._link.receive()) is not None:
                code = self._take(message)
        except (ConnectionError, ProtocolError) as error:
            why = str(error)
        except OSError as error:
            self.failed_here = error
        finally:
            self._link.close()
        if code is None and self.failed_here is None:
            self.gone = f"{why} (host {host})"
        self.code = -signal.SIGKILL if code is None else code
        return self.code

    def terminate(self) -> None:
        """Have it end; it goes on being followed."""
        if not self._told:
            self._told = True
            self._link.hang_up()

    def stop(self) -> None:
        """Follow it no more. Safe to call at any time and again."""
        self._link.cut()

    def close(self) -> None:
        """Give back what is followed by no thread."""
        self.stop()
        self._link.close()

    def _take(self, message: Message) -> int | None:
        """Deal with what it says; its exit code when it has ended."""
        match message:
            case Begun(at):
                now = time.monotonic()
                self._ahead = at - (self._asked + now) / 2
                self._link.send(self._run)
            case WantFolder(name):
                self._send_folder(name)
            case RankLine(text):
                self.tail.append(text)
                self._on_line(text)
            case RankReads(lines):
                with Path(self._run.task.reading).open("a") as file:
                    file.write(lines)
            case FileBegins():
                self._link.receive_file(message, self.written)
            case StopAsked():
                self._on_stop_asked()
            case RankEnded(code, problem, out_of_memory):
                if out_of_memory:
                    self.out_of_memory = f"{out_of_memory} (host {self._link.other_host})"
                if problem is not None:
                    told = msgspec.structs.replace(problem, at=problem.at - self._ahead)
                    replace_whole(Path(self._run.task.problem), msgspec.json.encode(told))
                return code
        return None

    def _send_folder(self, name: str) -> None:
        task = self._run.task
        place = {"parent": task.parent, "saved": task.saved}.get(name)
        if place is None:
            raise ProtocolError(f"it asks for a folder '{name}' that there is not")
        for file in self._run.folders[name]:
            self._link.send_file(name, Path(place["path"]), file.path)
        self._link.send(FolderEnds(name))

    def hand_over(self, output: Path, who: str) -> None:
        """Move what it has written into the output folder of the attempt. Raises FailException where another rank has
        written something else under the same name."""
        if not self.written.is_dir():
            return
        for path in sorted(each for each in self.written.rglob("*") if each.is_file()):
            name = path.relative_to(self.written)
            target = output / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, target)
            elif not (target.is_file() and filecmp.cmp(path, target, shallow=False)):
                raise FailException(
                    f"{who} has written '{name}' into ctx.output, and so has another rank, with other content: ranks "
                    "on several hosts write parts of a checkpoint under names of their own, or rank 0 alone writes"
                )
