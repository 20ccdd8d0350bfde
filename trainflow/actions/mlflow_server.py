"""Serve MLflow's page over a project's runs: its server, as a child in a process group of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from trainflow.errors import InputError
from trainflow.observability.process_lifetime import end_group
from trainflow.observability.redaction import redact_text
from trainflow.settings.load import load_settings
from trainflow.settings.project import Project
from trainflow.tracking.names import CHAIN, KIND
from trainflow.tracking.ui import ServerCommand, chain_url, server_command, server_url

_LOOK_SECONDS = 0.2
_STOP_SECONDS = 10.0
_LAST_BYTES = 2000
_ASK_SECONDS = 10.0
#: as many as MLflow gives at once; as many as a terminal shows
_MOST_EXPERIMENTS = 1000
_MOST_PAGES = 40


class ChainPage(NamedTuple):
    """The page of MLflow that shows the curves of a chain, which is called `name`."""

    name: str
    url: str


class MlflowServer(NamedTuple):
    """A server that can be started. `log`: where it writes."""

    command: ServerCommand
    host: str
    port: int
    log: Path

    def make_store(self) -> int:
        """Make what it serves, where it is not there yet; the exit code of that."""
        if self.command.make_store is None:
            return 0
        with _child(self.command.make_store, {}, self.log) as making:
            return making.wait()

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The server, until the block ends. SIGTERM is KeyboardInterrupt from then on."""
        with _child(self.command.argv, self.command.environment, self.log) as process:
            yield process

    def answers(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until it answers; False when it ended before."""
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        while process.poll() is None:
            try:
                socket.create_connection((reachable, self.port), timeout=1.0).close()
            except OSError:
                time.sleep(_LOOK_SECONDS)
            else:
                return True
        return False

    def chain_pages(self) -> list[ChainPage]:
        """The page of each chain it has, the one that was heard of last first; none where it cannot be asked."""
        try:
            experiments = self._ask("experiments/search", {"max_results": _MOST_EXPERIMENTS}).get("experiments", [])
            if not experiments:
                return []
            asked = {
                "experiment_ids": [each["experiment_id"] for each in experiments],
                "filter": f"tags.`{KIND}` = '{CHAIN}'",
                "max_results": _MOST_PAGES,
                "order_by": ["attributes.end_time DESC"],
            }
            runs = [each["info"] for each in self._ask("runs/search", asked).get("runs", [])]
            return [
                ChainPage(run["run_name"], chain_url(self.command.url, run["experiment_id"], run["run_id"]))
                for run in runs
            ]
        except (OSError, ValueError, LookupError):
            return []

    def _ask(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        import urllib.request

        request = urllib.request.Request(
            f"{server_url(self.host, self.port)}/api/2.0/mlflow/{what}",
            data=msgspec.json.encode(body),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        # an address of this machine: no proxy has to do with it
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_ASK_SECONDS) as answer:
            found: dict[str, Any] = msgspec.json.decode(answer.read())
        return found

    def last_words(self) -> str:
        """The end of its log, without secrets."""
        return redact_text(self.log.read_bytes()[-_LAST_BYTES:].decode(errors="replace"))


def mlflow_server(project: Project, host: str, port: int) -> MlflowServer:
    """The server of a project. Raises InputError where tracking.uri is a server already, or the port is taken;
    SettingsError."""
    command = server_command(load_settings(project).tracking, project.home, host=host, port=port)
    _check_free(host, port)
    project.home.create()
    return MlflowServer(command, host, port, project.home.path / "logs" / "mlflow.log")


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port") from None


@contextmanager
def _child(argv: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own; whatever ends this command ends all of the group.

    A signal that comes while the process is being created waits until it is known: Popen, interrupted between its fork
    and its return, would leave a child that is not ended.
    """
    early: list[int] = []

    def note(number: int, _frame: object) -> None:
        early.append(number)

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    on_control_c = signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    process: subprocess.Popen[bytes] | None = None
    try:
        process = _begin(argv, environment, log)
        signal.signal(signal.SIGTERM, interrupt)
        signal.signal(signal.SIGINT, on_control_c)
        if early:
            raise KeyboardInterrupt
        yield process
    finally:
        signal.signal(signal.SIGINT, on_control_c)
        if process is not None:
            end_group(process, _STOP_SECONDS)


def _begin(argv: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
