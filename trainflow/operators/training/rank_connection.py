"""The line between the first rank of an attempt and one on another host: what is said on it, and files.

The process of the attempt says `Begin`, and `RunRank` when it was answered; it hangs up to end the rank. The other end
(`trainflow.execution.ranks.agent`) asks for the files that it needs, says what its program prints and reads, sends the
files that it has written, and how it ended. Messages are frames of JSON, files follow their `FileBegins` as they are.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from trainflow.errors import ProtocolError
from trainflow.messages import frames
from trainflow.observability.file_access import naming_file
from trainflow.operators.training.rank_protocol import RankProblem
from trainflow.operators.training.training_task import TrainingTask

_CHUNK = 1 << 20


class FolderFile(msgspec.Struct, frozen=True):
    """A file of a folder: its path in it, bytes, and when it was last written (ns)."""

    path: str
    size: int
    written: int


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Say what your clock says."""


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """`at`: seconds of the monotonic clock of the host of the rank."""

    at: float


class RunRank(msgspec.Struct, frozen=True, tag="run"):
    """Train as one of several ranks. `argv`: the program; empty: the function that the task names. `folders`: what the
    task reads, by name (`parent`, `saved`)."""

    task: TrainingTask
    argv: list[str]
    environment: dict[str, str]
    folders: dict[str, list[FolderFile]]


class WantFolder(msgspec.Struct, frozen=True, tag="want_folder"):
    """A folder of the task is not on this host: send its files."""

    name: str


class FileBegins(msgspec.Struct, frozen=True, tag="file"):
    """Announce so many bytes of a file of the folder `name` (`output`: what the rank has written)."""

    name: str
    path: str
    size: int


class FolderEnds(msgspec.Struct, frozen=True, tag="folder_ends"):
    """All files of a folder were sent."""

    name: str


class RankLine(msgspec.Struct, frozen=True, tag="line"):
    """A line of what the program prints."""

    text: str


class RankReads(msgspec.Struct, frozen=True, tag="reads"):
    """Lines of how the rank reads the split (`RankReading`)."""

    lines: str


class StopAsked(msgspec.Struct, frozen=True, tag="stop_asked"):
    """The host of the rank is wanted for something else: the attempt has to stop."""


class RankEnded(msgspec.Struct, frozen=True, tag="ended"):
    """How the program ended: its exit code (negative: killed by that signal), and what it says itself."""

    code: int
    problem: RankProblem | None = None
    #: what is said of it where the kernel has killed it for want of memory
    out_of_memory: str = ""


Message = Begin | Begun | RunRank | WantFolder | FileBegins | FolderEnds | RankLine | RankReads | StopAsked | RankEnded
_MESSAGES: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


class RankConnection:
    """One end. A thread may send while another one receives; `hang_up` and `cut` are for any."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @property
    def own_host(self) -> str:
        """The address of this end."""
        return str(self._connection.getsockname()[0])

    @property
    def other_host(self) -> str:
        """The address of the other end."""
        with contextlib.suppress(OSError):
            return str(self._connection.getpeername()[0])
        return "gone"

    def send(self, message: Message) -> None:
        """Send a message. Raises ConnectionError when the other end is gone."""
        with _of_connection():
            frames.send(self._connection, msgspec.json.encode(message))

    def receive(self) -> Message | None:
        """Wait for a message; None: the other end has hung up, or is gone."""
        try:
            frame = frames.receive(self._connection)
            return None if frame is None else _MESSAGES.decode(frame)
        except (OSError, ProtocolError, msgspec.DecodeError):
            return None

    def send_file(self, name: str, folder: Path, path: str) -> None:
        """Send a file of a folder. Raises ConnectionError when the other end is gone, another OSError when the file
        cannot be read: then as many bytes were sent as the other end waits for."""
        problem: OSError | None = None
        with (folder / path).open("rb") as file:
            left = file.seek(0, 2)
            file.seek(0)
            self.send(FileBegins(name, path, left))
            while left:
                data = b""
                if problem is None:
                    try:
                        data = file.read(min(left, _CHUNK))
                    except OSError as error:
                        problem = error
                if not data:
                    problem = problem or OSError(f"{folder / path} has become shorter while it was sent")
                    data = bytes(min(left, _CHUNK))
                with _of_connection():
                    self._connection.sendall(data)
                left -= len(data)
        if problem is not None:
            raise problem

    def receive_file(self, begins: FileBegins, folder: Path) -> None:
        """Write the file that follows into a folder. Raises ConnectionError when the other end is gone, another OSError
        when the file cannot be written, ProtocolError for a path out of the folder."""
        path = PurePosixPath(begins.path)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ProtocolError(f"'{begins.path}' is no path in a folder")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        left, buffer = begins.size, memoryview(bytearray(_CHUNK))
        with naming_file(target), target.open("wb") as file:
            while left:
                with _of_connection():
                    count = self._connection.recv_into(buffer, min(left, _CHUNK))
                if count == 0:
                    raise ConnectionError("the other end is gone")
                file.write(buffer[:count])
                left -= count

    def drain(self, on_bytes: Callable[[int], object]) -> None:
        """Read what the other end says until it hangs up, and forget it: what it says last is only heard by one that
        is not kept waiting. `on_bytes` is told how many came each time."""
        buffer = bytearray(_CHUNK)
        with contextlib.suppress(OSError):
            while count := self._connection.recv_into(buffer):
                on_bytes(count)

    def hang_up(self) -> None:
        """Say nothing more; what the other end still says is heard."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Neither say nor hear anything more: a thread that waits at this end is told that the other one is gone."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection back; no thread uses it any more."""
        self._connection.close()


@contextlib.contextmanager
def _of_connection() -> Iterator[None]:
    """What fails inside is the connection, and no file of this host."""
    try:
        yield
    except OSError as error:
        raise ConnectionError(str(error)) from error


def files_in(folder: Path) -> list[FolderFile]:
    """The files of a folder and those below it; links to files count as what they name. Raises OSError."""
    return list(_walk(folder, ""))


def _walk(folder: Path, prefix: str) -> Iterator[FolderFile]:
    for path in sorted(folder.iterdir()):
        name = f"{prefix}{path.name}"
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, f"{name}/")
        elif path.is_file():
            status = path.stat()
            yield FolderFile(name, status.st_size, status.st_mtime_ns)
        else:
            raise OSError(f"{path} is neither a file nor a folder, and cannot be sent to another host")


def is_same_folder(folder: Path, files: Sequence[FolderFile]) -> bool:
    """Whether hosts that share their files see this very folder: names, sizes and times are those."""
    try:
        return files_in(folder) == list(files)
    except OSError:
        return False
