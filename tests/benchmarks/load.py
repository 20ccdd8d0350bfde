"""A hundred open pages with their streams of events, and clients in a loop: how long a heartbeat of an attempt waits,
and what it costs the scheduler."""

from __future__ import annotations

import http.client
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks.processes import pss_mib, tree
from tests.benchmarks.rest import BEATS, CLIENTS, RUNS_PAGE, beat, get, prepare, send
from tests.benchmarks.transition import PIPELINE
from tests.benchmarks.workbench import Bench, bench, show, throw_away_project
from tests.support.api import TOKEN
from tests.support.ports import free_port
from trainflow.bootstrap import interpreter
from trainflow.messages.execution_api import Start
from trainflow.messages.http_protocol import TOKEN_HEADER

PAGES, ROUNDS, RUNS_A_ROUND = 100, 5, 3


def main() -> None:
    """Print the figures."""
    _heartbeats()
    _scheduler()


def _heartbeats() -> None:
    with throw_away_project() as root, socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        key, secret = prepare(root)
        port = listener.getsockname()[1]
        command = interpreter("trainflow.api.main", str(root), str(listener.fileno()))
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
        try:
            beats = http.client.HTTPConnection("127.0.0.1", port)
            send(beats, "start", Start(key, 1, 1.0, "there"), secret, **{TOKEN_HEADER: TOKEN})
            alone = [beat(beats, key) * 1000 for _ in range(BEATS)]
            show("heartbeat alone", alone, "ms", "")
            with under_load(port, PAGES, CLIENTS):
                beside = [beat(beats, key) * 1000 for _ in range(BEATS)]
                memory = pss_mib(tree(process.pid))
            show(f"… beside {PAGES} pages, {CLIENTS} clients in a loop", beside, "ms", "≤ 100 ms more")
            more = [slowest(beside) - slowest(alone)]
            show("… the slowest of 20, longer than alone by", more, "ms", "≤ 100 ms")
            show("… memory of the API server (PSS)", [memory], "MiB", "")
        finally:
            process.terminate()
            process.wait()


def slowest(values: list[float]) -> float:
    """What one of twenty takes longer than."""
    return statistics.quantiles(values, n=20)[-1]


def _scheduler() -> None:
    """Processor time of the engine, beside its own server and beside that of another project: a processor that is taken
    by others makes each task dearer, whatever these ask."""
    port, other = free_port(), free_port()
    settings = f"[api]\nport = {port}\n"
    with bench(settings, serves=True, chain_of_30=PIPELINE) as made, _server_of_another(other):
        _cost(made)
        alone, elsewhere, beside = [], [], []
        for _ in range(ROUNDS):
            alone.append(_cost(made))
            for costs, asked in ((elsewhere, other), (beside, port)):
                with under_load(asked, PAGES, 1):
                    costs.append(_cost(made))
    show("scheduler: processor of a task", alone, "ms", "")
    show(f"… while another project has {PAGES} pages, a client", elsewhere, "ms", "")
    show(f"… while its own has {PAGES} pages, a client in a loop", beside, "ms", "")
    more = [(mine / others - 1) * 100 for mine, others in zip(beside, elsewhere, strict=True)]
    show("… more than beside another project's", more, "%", "≤ 5 %")


@contextmanager
def _server_of_another(port: int) -> Iterator[None]:
    with throw_away_project() as root, socket.create_server(("127.0.0.1", port), backlog=512) as listener:
        prepare(root)
        command = interpreter("trainflow.api.main", str(root), str(listener.fileno()))
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def _cost(made: Bench) -> float:
    """Milliseconds of this process for each task."""
    began = time.process_time()
    for _ in range(RUNS_A_ROUND):
        made.run_to_end(made.trigger("chain_of_30"))
    return (time.process_time() - began) * 1000 / RUNS_A_ROUND / 30


@contextmanager
def under_load(port: int, pages: int, clients: int) -> Iterator[None]:
    """Have pages be open and clients ask, from another process."""
    command = [sys.executable, "-m", "tests.benchmarks.load", str(port), str(pages), str(clients)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        try:
            yield
        finally:
            asking.kill()


def load(port: int, pages: int, clients: int) -> None:
    """Open pages, ask in a loop, and say when all have begun."""
    # those who ask are on other hosts
    os.nice(5)
    begun = threading.Barrier(pages + clients + 1)
    for work, count in ((_page, pages), (_client, clients)):
        for _ in range(count):
            threading.Thread(target=work, args=(port, begun), daemon=True).start()
    begun.wait()
    print("begun", flush=True)
    threading.Event().wait()


def _client(port: int, begun: threading.Barrier) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    get(connection, RUNS_PAGE.replace("/dags/d/", "/dags/~/"))
    begun.wait()
    while True:
        get(connection, RUNS_PAGE.replace("/dags/d/", "/dags/~/"))


def _page(port: int, begun: threading.Barrier) -> None:
    """A page that is open, and is fetched anew when it has changed."""
    stream = http.client.HTTPConnection("127.0.0.1", port)
    fetching = http.client.HTTPConnection("127.0.0.1", port)
    get(fetching, "/runs")
    stream.request("GET", "/events?topic=runs&topic=fleet")
    lines = stream.getresponse()
    begun.wait()
    while line := lines.readline():
        if line.startswith(b"event: changed"):
            get(fetching, "/runs")


if __name__ == "__main__":
    load(*(int(each) for each in sys.argv[1:])) if len(sys.argv) > 1 else main()
