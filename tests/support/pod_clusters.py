"""Clusters for tests of the executor: the pod API server, with the rights of the manifests that are shipped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tests.support.kubernetes_clients import missing, write_kubeconfig
from tests.support.warm_commands import WITHOUT_PANDAS
from trainflow.testing.kubernetes_api.server import PodApiServer

REPOSITORY = Path(__file__).parent.parent.parent
TOKEN = "of-the-scheduler"


def scheduler_rules() -> list[dict[str, Any]]:
    """What the Role in configs/kubernetes allows."""
    found: list[dict[str, Any]] = []
    for item in yaml.safe_load_all((REPOSITORY / "configs" / "kubernetes" / "rbac.yaml").read_text()):
        if item["kind"] == "Role":
            found += item["rules"]
    return found


@contextmanager
def pod_cluster(folder: Path) -> Iterator[tuple[PodApiServer, Path]]:
    """A cluster, and the kubeconfig of a scheduler in it."""
    for name in ("kubernetes_validate", "lightkube"):
        if find_spec(name) is None:
            missing(name, "pip install 'trainflow[test]'")
    folder.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environ = {"PATH": path, "HOME": os.environ.get("HOME", str(folder)), "TMPDIR": str(folder), **WITHOUT_PANDAS}
    environ |= {name: value for name, value in os.environ.items() if name.startswith(("ACCEPTANCE_", "COVERAGE"))}
    with PodApiServer(folder / "pods", tokens={TOKEN: scheduler_rules()}, environ=environ) as server:
        server.api.bookmark_seconds = 0.2
        yield server, write_kubeconfig(folder / "kubeconfig", server.kubeconfig({"token": TOKEN}))
