"""Requests to the API server of a cluster, and what its refusals mean."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainflow.clock import Clock
from trainflow.errors import EngineError
from trainflow.executors.kubernetes.credentials import cluster_config, connection_to
from trainflow.executors.kubernetes.options import KubernetesOptions

if TYPE_CHECKING:
    import httpx2

#: objects in one answer to a list
_PAGE = 500
_RETRY_SECONDS_AT_MOST = 600.0


class ClusterAway(EngineError):
    """The cluster does not do it now: put back what was asked. Attributes: retry_after (seconds to be left alone)."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ClusterSilent(ClusterAway):
    """A watch has said nothing for longer than one that works would."""


class ClusterRefusal(EngineError):
    """The cluster will never do it: what was asked is wrong. Attributes: code (HTTP)."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class Cluster:
    """A connection to one cluster. Its methods raise ClusterAway and ClusterRefusal."""

    def __init__(self, options: KubernetesOptions, clock: Clock, root: Path) -> None:
        """Raises EngineError for a configuration that cannot be used."""
        config = cluster_config(options, os.environ, root)
        self.namespace = options.namespace or config.namespace
        self.server = config.cluster.server
        self._http = connection_to(config, clock)

    def create(self, kind: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object of a kind (`pods`). Raises ClusterRefusal with code 409 where there is one of its name."""
        path = f"/api/v1/namespaces/{item['metadata']['namespace']}/{kind}"
        return self._ask("POST", path, item, {"fieldValidation": "Strict", "fieldManager": "trainflow"})

    def get_pod(self, namespace: str, name: str) -> dict[str, Any]:
        """A pod. Raises ClusterRefusal with code 404 where there is none."""
        return self._ask("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")

    def delete_pod(self, namespace: str, name: str, uid: str | None, grace: int | None) -> None:
        """Delete a pod, this very one where `uid` is given; one that is gone is no error. `grace`: seconds."""
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            self._ask("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", body)
        except ClusterRefusal as refusal:
            if refusal.code not in (404, 409):
                raise

    def list_pods(self, namespace: str, labels: str) -> tuple[str, list[dict[str, Any]]]:
        """The version of the list, and all pods of a namespace that have these labels."""
        query = {"labelSelector": labels, "limit": str(_PAGE)}
        items: list[dict[str, Any]] = []
        while True:
            page = self._ask("GET", f"/api/v1/namespaces/{namespace}/pods", query=query)
            items += page.get("items") or ()
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return page["metadata"]["resourceVersion"], items
            query["continue"] = more

    @contextmanager
    def watch_pods(self, namespace: str, labels: str, version: str, *, idle: float, lasts: float) -> Iterator[Watched]:
        """What happens to pods after a version. `idle`: seconds of silence after which the connection counts as broken;
        `lasts`: seconds after which the server ends the watch."""
        import httpx2

        query = {
            "watch": "true",
            "labelSelector": labels,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(lasts))),
        }
        path = f"/api/v1/namespaces/{namespace}/pods"
        timeout = httpx2.Timeout(10.0, read=idle)
        try:
            with self._http.stream("GET", path, params=query, timeout=timeout) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._problem(response)
                yield Watched(response)
        except httpx2.ReadTimeout as error:
            raise ClusterSilent(f"the watch of {self.server} has said nothing for {idle:.0f} s") from error
        except (httpx2.HTTPError, OSError) as error:
            raise self._away(error) from error

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        import httpx2

        try:
            response = self._http.request(method, path, json=body, params=query)
        except (httpx2.HTTPError, OSError) as error:
            raise self._away(error) from error
        if not response.is_success:
            raise self._problem(response, deleting=method == "DELETE")
        try:
            answer: dict[str, Any] = response.json()
        except ValueError:
            raise ClusterAway(f"{self.server} answers with what is no JSON: is it a cluster?") from None
        return answer

    def _away(self, error: Exception) -> ClusterAway:
        return ClusterAway(f"the cluster {self.server} does not answer: {str(error) or type(error).__name__}")

    def _problem(self, response: httpx2.Response, *, deleting: bool = False) -> ClusterAway | ClusterRefusal:
        """What an answer means that is no success. Its text is the server's: it repeats no value of what was asked,
        which holds a secret, but names of fields and objects."""
        code = response.status_code
        try:
            status = response.json()
            said, reason = str(status.get("message") or ""), str(status.get("reason") or "")
        except (ValueError, AttributeError):
            said, reason = "", ""
        told = f"the cluster {self.server} answers {code}{f': {said}' if said else ''}"
        if code in (400, 404, 405, 409, 410, 413, 415, 422) and (code != 409 or reason == "AlreadyExists" or deleting):
            return ClusterRefusal(told, code=code)
        return ClusterAway(told, retry_after=_retry_after(response))


def _retry_after(response: httpx2.Response) -> float:
    try:
        return min(float(response.headers.get("Retry-After", 0)), _RETRY_SECONDS_AT_MOST)
    except ValueError:
        return 0.0


class Watched:
    """A watch that goes on."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give its events."""
        for line in self._response.iter_lines():
            if line:
                yield json.loads(line)

    def cut(self) -> None:
        """End it, from another thread."""
        stream = self._response.extensions.get("network_stream")
        connection = stream.get_extra_info("socket") if stream is not None else None
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
