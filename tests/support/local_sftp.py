"""An SFTP server on this machine, for tests: SSH by asyncssh, in a process of its own; the files by asyncssh, or by
OpenSSH's `sftp-server`, which is what most users have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from tests.support.child_servers import dies_along
from tests.support.local_object_stores import missing

_REPOSITORY = Path(__file__).parents[2]
USER, PASSWORD = "trainer", "hunter2-of-sftp"
#: where Debian's and Red Hat's packages put it
_OPENSSH = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")


class LocalSFTP(msgspec.Struct, frozen=True):
    """Where the server is, and the file that has its host key."""

    port: int
    folder: Path
    known_hosts: Path

    @property
    def storage_options(self) -> dict[str, Any]:
        """What reaches it."""
        return {"username": USER, "password": PASSWORD, "known_hosts": str(self.known_hosts)}

    def make_url(self) -> str:
        """The URL of a new, empty folder."""
        folder = self.folder / uuid.uuid4().hex[:12]
        folder.mkdir()
        return f"sftp://127.0.0.1:{self.port}{folder}"


def openssh_server() -> str:
    """The path of OpenSSH's SFTP server. Where it is missing the test is skipped; with `CI` set that is an error."""
    found = next((path for path in _OPENSSH if os.access(path, os.X_OK)), None) or shutil.which("sftp-server")
    return found or missing("no SFTP server of OpenSSH: install openssh-sftp-server")


@contextlib.contextmanager
def local_sftp(folder: Path, program: str = "") -> Iterator[LocalSFTP]:
    """Run the server on a free port, its files below `folder`. `program`: who serves the files, instead of asyncssh."""
    if find_spec("asyncssh") is None:
        missing("no SFTP server: no module named asyncssh; pip install 'trainflow[test]'")
    log, known_hosts = folder / "server.log", folder / "known_hosts"
    with log.open("wb") as errors:
        words = [*dies_along(), sys.executable, "-m", "tests.support.local_sftp", str(known_hosts), program]
        server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=_REPOSITORY)
    assert server.stdout is not None
    try:
        port = server.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"the SFTP server has ended: {log.read_text(errors='replace')}")
        yield LocalSFTP(int(port), folder, known_hosts)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


# -- the server's process ------------------------------------------------------------------------------------------


async def _serve(known_hosts: Path, program: str) -> None:
    """Print the port, and serve until killed."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")

    class Server(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

        def session_requested(self) -> Any:
            return _program_session(program) if program else True

    # asyncssh takes no other program for the subsystem of files, so a session of ours runs it
    how: dict[str, Any] = {"encoding": None} if program else {"sftp_factory": True}
    acceptor = await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key], **how)
    port = acceptor.get_port()
    known_hosts.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await acceptor.wait_closed()


def _program_session(program: str) -> Any:
    """A session whose subsystem `sftp` is a program that speaks the protocol on its standard input and output."""
    import asyncssh

    class ProgramSession(asyncssh.SSHServerSession):
        def connection_made(self, channel: Any) -> None:
            self._channel = channel
            self._asked: asyncio.Queue[bytes] = asyncio.Queue()

        def subsystem_requested(self, subsystem: str) -> bool:
            return subsystem == "sftp"

        def session_started(self) -> None:
            self._serving = asyncio.get_running_loop().create_task(self._serve())

        def data_received(self, data: bytes, _datatype: int | None) -> None:
            self._asked.put_nowait(data)

        def eof_received(self) -> bool:
            self._asked.put_nowait(b"")
            return True

        def connection_lost(self, error: Exception | None) -> None:
            self._asked.put_nowait(b"")

        async def _serve(self) -> None:
            pipe = asyncio.subprocess.PIPE
            served = await asyncio.create_subprocess_exec(program, stdin=pipe, stdout=pipe)
            assert served.stdin is not None
            assert served.stdout is not None
            answering = asyncio.get_running_loop().create_task(self._answer(served.stdout))
            with contextlib.suppress(ConnectionError):
                while data := await self._asked.get():
                    served.stdin.write(data)
                    await served.stdin.drain()
            served.stdin.close()
            await answering
            await served.wait()

        async def _answer(self, answers: asyncio.StreamReader) -> None:
            while data := await answers.read(1 << 16):
                with contextlib.suppress(OSError):  # the client has gone
                    self._channel.write(data)
            self._channel.close()

    return ProgramSession()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2]))
