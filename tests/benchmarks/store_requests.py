"""What a chain in an object store asks of it: the scaffold's ten days, a run a day, on each server that can be started
here, at once and with a latency, beside the local disk in the same run; and a pipeline of five stages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from tests.benchmarks.counting_proxy import CountingProxy, proxied
from tests.support.local_object_stores import (
    LocalAzure,
    LocalGCS,
    LocalS3,
    StoreServer,
    local_azure,
    local_gcs,
    local_s3,
)
from trainflow.scaffold.lay_out import lay_out

RUNS = 10
STAGES, STAGE_RUNS = 5, 4
LATENCY_SECONDS = 0.02


class Measured(NamedTuple):
    """One chain, from the first command to the end of the last run."""

    seconds: float
    requests: int
    bytes: int
    checkpoints: int


def main() -> None:
    """Print requests, bytes and seconds a run for each store."""
    local = _measured({})
    print(f"\n{RUNS} runs of a chain, a partition a run, a retention that prunes in the second half; per run:")
    print(f"  {'store':26} {'requests':>8} {'kB':>7} {'seconds':>8}   beside the local disk")
    print(f"  {'local disk':26} {'':>8} {'':>7} {local.seconds / RUNS:8.2f}")
    with ExitStack() as stack:
        for name, server, proxy in _servers(stack):
            for latency in (0.0, LATENCY_SECONDS):
                proxy.delay_seconds = latency
                label = f"{name}, {latency * 1000:.0f} ms" if latency else name
                _print(label, _measured(_environment(server), proxy), local)
            if name == "S3":
                proxy.delay_seconds = 0.0
                found = _measured(_environment(server), proxy, stages=STAGES)
                per, kinds = found.requests / found.checkpoints, proxy.counts.most_common(6)
                said = ", ".join(f"{count} {method} {status}" for (method, status), count in kinds)
                print(f"  {f'S3, {STAGES} stages':26} {per:8.1f} a checkpoint, of {found.checkpoints} ({said})")


def _print(label: str, found: Measured, local: Measured) -> None:
    more = (found.seconds - local.seconds) / RUNS
    times = found.seconds / local.seconds
    figures = f"{found.requests / RUNS:8.1f} {found.bytes / RUNS / 1e3:7.1f} {found.seconds / RUNS:8.2f}"
    print(f"  {label:26} {figures}   {times:.1f} times as long, {more:+.2f} s a run")


def _servers(stack: ExitStack) -> Iterator[tuple[str, StoreServer, CountingProxy]]:
    """The servers there are, each behind a proxy."""
    starts: dict[str, tuple[AbstractContextManager[LocalS3 | LocalGCS | LocalAzure], Callable[[str], StoreServer]]] = {
        "S3": (local_s3(), LocalS3),
        "Google Cloud Storage": (local_gcs(), LocalGCS),
        "Azure Blob Storage": (local_azure(Path(tempfile.mkdtemp()) / "azurite.log"), LocalAzure),
    }
    for name, (starting, made_of) in starts.items():
        try:
            server = stack.enter_context(starting)
        except pytest.skip.Exception as missing:
            print(f"  {name}: {missing}")
            continue
        proxy = stack.enter_context(proxied(server.endpoint))
        yield name, made_of(f"http://127.0.0.1:{proxy.port}"), proxy


def _environment(server: StoreServer) -> dict[str, str]:
    url, options = server.make_url(), server.storage_options
    inner = options.pop("client_kwargs", {})
    # an environment variable holds no table in a table
    options |= {"endpoint_url": inner["endpoint_url"]} if inner else {}
    return {
        "TRAINFLOW__CHECKPOINTS__STORE": f"{url.rstrip('/')}/checkpoints",
        "TRAINFLOW__CHECKPOINTS__STORAGE_OPTIONS": msgspec.json.encode(options).decode(),
    }


def _measured(environ: dict[str, str], proxy: CountingProxy | None = None, *, stages: int = 0) -> Measured:
    command = Path(sys.executable).with_name("trainflow")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        lay_out(root, "project")
        pipeline = root / "pipelines" / "example.yaml"
        words = [str(command), "start", "pipelines/example.yaml", "--plain", "--set", "split.partitions=1"]
        if stages:
            others = "".join(f"  stage{number}: {{init_from: {{stage: base}}}}\n" for number in range(1, stages))
            pipeline.write_text(f"{pipeline.read_text()}\nstages:\n  base: {{}}\n{others}")
            words += ["--set", f"samples.end=2024-01-{STAGE_RUNS + 1:02d}"]
        if proxy is not None:
            proxy.clear()
        began = time.perf_counter()
        off = {"TRAINFLOW__TRACKING__ENABLED": "false"}
        ended = subprocess.run(words, cwd=root, env={**os.environ, **off, **environ}, capture_output=True, text=True)
        seconds = time.perf_counter() - began
        if ended.returncode:
            raise RuntimeError(ended.stdout + ended.stderr)
        made = re.search(r"(\d+) checkpoints? committed", ended.stdout)
        requests, bytes_ = (proxy.counts.total(), proxy.bytes) if proxy is not None else (0, 0)
        return Measured(seconds, requests, bytes_, int(made[1]) if made else 0)
