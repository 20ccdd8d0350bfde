"""Run a pod API server: `python -m trainflow.testing.kubernetes_api --kubeconfig FILE`, until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
from pathlib import Path

from trainflow.testing.kubernetes_api.server import PodApiServer


def main() -> int:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m trainflow.testing.kubernetes_api",
        description="A Kubernetes API server whose pods are processes of this machine.",
    )
    parser.add_argument("--kubeconfig", required=True, type=Path, help="file to write, for clients")
    given = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with tempfile.TemporaryDirectory() as folder, PodApiServer(Path(folder)) as server:
        # JSON is YAML
        given.kubeconfig.write_text(json.dumps(server.kubeconfig(), indent=2))
        print(f"{server.url}: export KUBECONFIG={given.kubeconfig.absolute()}", flush=True)  # noqa: T201
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
