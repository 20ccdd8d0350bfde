"""Run the contract of executors in the cluster that `kubectl` points at.

`python -m trainflow.testing.kubernetes_contract --image IMAGE --host ADDRESS --folder FOLDER`: the engine and the API
server run here, pods there. Pods reach this host at its address, and see the folder at the same path: a pod template
mounts it (`--pod-template`; a hostPath where the cluster is on this host). The image needs trainflow in the version
that is installed here, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Row

from trainflow.executors.kubernetes.executor import KubernetesExecutor
from trainflow.executors.kubernetes.pod import ATTEMPT, OWNER, RANK, owner_of
from trainflow.messages.workload import ExecuteTask
from trainflow.settings.project import Project
from trainflow.testing.contract_engine import ContractEngine, contract_api, lay_out_project, listening
from trainflow.testing.executor_engine_contract import ExecutorEngineContract, RankContract

_ARGUMENTS = "TRAINFLOW_KUBERNETES_CONTRACT"


class _Arguments(NamedTuple):
    """What the command was given."""

    image: str
    host: str
    folder: str
    bind: str
    namespace: str | None
    context: str | None
    pod_template: str | None
    words: list[str]

    @property
    def executor(self) -> str:
        """The table of the executor, as TOML."""
        options: dict[str, Any] = {"type": "kubernetes", "slots": 4, "image": self.image, "redeliver_seconds": 30}
        for key in ("namespace", "context", "pod_template"):
            if (value := getattr(self, key)) is not None:
                options[key] = value
        return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in options.items()) + "}"

    def kubectl(self, *words: str) -> str:
        """Run `kubectl`; what it writes."""
        place = [f"--{key}={value}" for key in ("namespace", "context") if (value := getattr(self, key)) is not None]
        return subprocess.run(["kubectl", *place, *words], check=True, capture_output=True, text=True).stdout


class TestKubernetesCluster(ExecutorEngineContract, RankContract):
    """The contract. Its processes are in pods: `kubectl` looks after them."""

    @pytest.fixture
    def arguments(self) -> _Arguments:
        """What the command was given; without it nothing is run."""
        given = os.environ.get(_ARGUMENTS)
        if given is None:
            pytest.skip("run it with python -m trainflow.testing.kubernetes_contract")
        self.given = _Arguments(*json.loads(given))
        return self.given

    @pytest.fixture
    def project(self, arguments: _Arguments) -> Iterator[Project]:
        """A project in the folder that pods see, and an API server that they reach."""
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name, listening(arguments.bind) as listener:
            Path(name).chmod(0o777)  # pods may have another user
            port = listener.getsockname()[1]
            token = secrets.token_hex(16)
            api = f'host = "{arguments.bind}"\nurl = "http://{arguments.host}:{port}"\ntoken = "{token}"'
            project = lay_out_project(Path(name), arguments.executor, port, name=self.name, api=api)
            project.home.create()
            with contract_api(project, listener):
                yield project
            labels = f"{OWNER}={owner_of(f'http://{arguments.host}:{port}', self.name)}"
            arguments.kubectl("delete", "pods", "-l", labels, "--wait=false")

    def deliver_again(self, engine: ContractEngine, workload: ExecuteTask) -> None:
        executor = engine.executor
        assert isinstance(executor, KubernetesExecutor)
        executor.deliver(workload)

    def kill_child(self, engine: ContractEngine, run: int) -> None:
        row = engine.task(run)
        self.given.kubectl("exec", self._pod(row), "--", "sh", "-c", f"kill -9 {row.pid}")

    def runs(self, engine: ContractEngine, row: Row[Any]) -> bool:
        pods = self.given.kubectl("get", "pods", "-l", f"{ATTEMPT}={row.attempt_id}", "-o", "name")
        return bool(pods.strip())

    def hosts(self, engine: ContractEngine, run: int) -> int:
        labels = f"{ATTEMPT}={engine.attempts(run)[-1].attempt_id}"
        return len(self.given.kubectl("get", "pods", "-l", labels, "-o", "name").split())

    def lose_rank(self, engine: ContractEngine, run: int, rank: int) -> None:
        labels = f"{ATTEMPT}={engine.task(run).attempt_id},{RANK}={rank}"
        self.given.kubectl("delete", "pods", "-l", labels, "--grace-period=0", "--force")

    def _pod(self, row: Row[Any]) -> str:
        return self.given.kubectl("get", "pods", "-l", f"{ATTEMPT}={row.attempt_id}", "-o", "name").strip()


def main() -> int:
    """Run it; the exit code is pytest's."""
    parser = argparse.ArgumentParser(
        prog="python -m trainflow.testing.kubernetes_contract",
        description="Run the contract of executors in the cluster that kubectl points at.",
    )
    parser.add_argument("--image", required=True, help="an image with trainflow, in the version of this host")
    parser.add_argument("--host", required=True, help="address of this host, as pods reach it")
    parser.add_argument("--folder", required=True, help="a folder that pods see at the same path")
    parser.add_argument("--bind", default="0.0.0.0", help="address that the API server listens on")
    parser.add_argument("--namespace", help="default: that of the context")
    parser.add_argument("--context", help="default: the current one")
    parser.add_argument("--pod-template", help="file of a pod that mounts the folder")
    parser.add_argument("words", nargs="*", metavar="PYTEST", help="words for pytest, after --")
    given = parser.parse_args()
    if given.pod_template is not None:
        given.pod_template = str(Path(given.pod_template).absolute())
    given.folder = str(Path(given.folder).absolute())
    os.environ[_ARGUMENTS] = json.dumps([getattr(given, name) for name in _Arguments._fields])
    words = ["-c", os.devnull, "-p", "no:cacheprovider", "-ra", "--rootdir", given.folder, *given.words]
    return int(pytest.main([*words, str(Path(__file__))]))


if __name__ == "__main__":
    sys.exit(main())
