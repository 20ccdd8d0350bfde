"""The pod API server under clients that others have written: each scenario with `kubectl` and the official client."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.support.kubernetes_clients import Kubectl, KubernetesClient, OfficialClient, Ran, Refused, write_kubeconfig
from trainflow.testing.kubernetes_api.resources import PODS, QUOTAS
from trainflow.testing.kubernetes_api.server import PodApiServer
from trainflow.testing.kubernetes_api.status import ApiStatus
from trainflow.testing.kubernetes_api.versioned_objects import Change
from trainflow.testing.processes import wait_for

#: real clients, each an interpreter or a second to import
pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PodApiServer]:
    with PodApiServer(tmp_path / "pods") as server:
        yield server


@pytest.fixture(params=["kubectl", "official"])
def client(request: pytest.FixtureRequest, server: PodApiServer, tmp_path: Path) -> Iterator[KubernetesClient]:
    config = write_kubeconfig(tmp_path / "config", server.kubeconfig())
    if request.param == "kubectl":
        yield Kubectl(config)
    else:
        official = OfficialClient(config)
        yield official
        official.close()


def pod(name: str, *command: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 60,
            "containers": [{"name": "main", "image": "any", "command": list(command)}],
            **spec,
        },
    }


WAITS = ("sh", "-c", "trap 'echo told; exit 3' TERM; echo begun; while :; do sleep 0.02; done")


def phase(client: KubernetesClient, name: str) -> str:
    return str(client.get("pod", name)["status"]["phase"])


def begun(server: PodApiServer, name: str) -> bool:
    """Its process has said so, and its kubelet that it runs: one comes before the other, as in a real cluster."""
    found = server.store.get(PODS, "default", name)
    containers = server.kubelet.run_of(found).containers
    if found["status"]["phase"] != "Running":
        return False
    return bool(containers) and containers[0].log.exists() and "begun" in containers[0].log.read_text()


def test_pod_runs_to_its_end_and_its_log_is_there(server: PodApiServer, client: KubernetesClient) -> None:
    client.apply(pod("p", "sh", "-c", "echo one; echo two >&2"))
    wait_for(lambda: phase(client, "p") == "Succeeded", "the pod")
    assert client.log("p") == "one\ntwo\n"
    assert client.log("p", tail=1) == "two\n"
    assert client.log("p", follow=True) == "one\ntwo\n"
    state = client.get("pod", "p")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["reason"]) == (0, "Completed")


def test_pod_that_fails_says_its_exit_code_and_the_end_of_its_log(
    server: PodApiServer, client: KubernetesClient
) -> None:
    made = pod("p", "sh", "-c", "echo why; exit 7")
    made["spec"]["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError"
    client.apply(made)
    wait_for(lambda: phase(client, "p") == "Failed", "the pod")
    state = client.get("pod", "p")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["reason"], state["message"]) == (7, "Error", "why\n")


def test_watch_sees_a_pod_come_run_and_go(server: PodApiServer, client: KubernetesClient) -> None:
    post(server, PODS_PATH, pod("other", "true"))
    post(server, PODS_PATH, pod("p", *WAITS))
    seen: list[tuple[str, str, str]] = []
    for what, item in client.watch("pod", labels="app=p"):
        seen.append((what, item["metadata"]["name"], item["status"]["phase"]))
        if seen[-1][2] == "Running":
            server.store.remove(PODS, "default", "p")
        if what == "DELETED":
            break
    assert (seen[0][0], seen[-1]) == ("ADDED", ("DELETED", "p", "Running"))
    assert {name for _, name, _ in seen} == {"p"}


def test_delete_is_graceful_sigterm_then_gone(server: PodApiServer, client: KubernetesClient) -> None:
    client.apply(pod("p", *WAITS))
    wait_for(lambda: begun(server, "p"), "the pod")
    run = server.kubelet.run_of(server.pods()[0])
    client.delete("pod", "p")
    assert server.pods() == []
    assert run.containers[0].log.read_text() == "begun\ntold\n"
    with pytest.raises(Refused, match="not found"):
        client.get("pod", "p")


def test_delete_kills_what_does_not_listen_after_its_grace(server: PodApiServer, client: KubernetesClient) -> None:
    client.apply(pod("p", "sh", "-c", "trap '' TERM; echo begun; while :; do sleep 0.02; done"))
    wait_for(lambda: begun(server, "p"), "the pod")
    container = server.kubelet.run_of(server.pods()[0]).containers[0]
    process = wait_for(lambda: container.process, "the process")
    client.delete("pod", "p", grace=1)
    assert process.wait() == -signal.SIGKILL


def test_apply_twice_changes_labels_and_refuses_what_cannot_be_changed(
    server: PodApiServer, client: KubernetesClient
) -> None:
    made = pod("p", *WAITS)
    client.apply(made)
    made["metadata"]["labels"]["more"] = "yes"
    client.apply(made)
    assert client.names("pods" if isinstance(client, Kubectl) else "pod", labels="more=yes,app in (p,q)") == ["p"]
    made["spec"]["containers"][0]["command"] = ["true"]
    with pytest.raises(Refused, match="pod updates may not change fields"):
        client.apply(made)


def test_selectors_by_label_and_field(server: PodApiServer, client: KubernetesClient) -> None:
    for name in ("a", "b", "c"):
        client.apply(pod(name, "true"))
    kind = "pods" if isinstance(client, Kubectl) else "pod"
    assert client.names(kind, labels="app!=a,app") == ["b", "c"]
    assert client.names(kind, labels="app notin (a,b)") == ["c"]
    assert client.names(kind, fields="metadata.name=b") == ["b"]
    with pytest.raises(Refused, match="field label not supported"):
        client.names(kind, fields="spec.nope=b")


def test_unknown_field_is_refused(server: PodApiServer, tmp_path: Path) -> None:
    made = pod("p", "true", nodeselector={"gpu": "yes"})
    client = Kubectl(write_kubeconfig(tmp_path / "config", server.kubeconfig()))
    with pytest.raises(Refused, match=r'strict decoding error: unknown field "spec.nodeselector"'):
        client.apply(made)
    assert server.pods() == []


def test_secret_reaches_a_pod_by_reference_and_goes_with_its_owner(
    server: PodApiServer, client: KubernetesClient
) -> None:
    made = pod("p", "sh", "-c", "echo $WORD; sleep 100", terminationGracePeriodSeconds=0)
    reference = {"secretKeyRef": {"name": "s", "key": "word"}}
    made["spec"]["containers"][0]["env"] = [{"name": "WORD", "valueFrom": reference}]
    client.apply(made)

    def reason() -> str | None:
        states = client.get("pod", "p")["status"].get("containerStatuses") or [{"state": {}}]
        found: str | None = states[0]["state"].get("waiting", {}).get("reason")
        return found

    wait_for(lambda: reason() == "CreateContainerConfigError", "the secret to be missed")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": client.get("pod", "p")["metadata"]["uid"]}
    metadata = {"name": "s", "ownerReferences": [owner]}
    client.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"word": "hush"}})
    wait_for(lambda: phase(client, "p") == "Running" and client.log("p") == "hush\n", "the word")
    assert client.get("secret", "s")["data"] == {"word": "aHVzaA=="}
    client.delete("pod", "p", grace=0)
    with pytest.raises(Refused, match=r'secrets "s" not found'):
        client.get("secret", "s")


def test_commands_run_beside_a_container(server: PodApiServer, client: KubernetesClient) -> None:
    client.apply(pod("p", *WAITS))
    wait_for(lambda: begun(server, "p"), "the pod")
    assert client.execute("p", "sh", "-c", "echo out") == "out\n"
    with pytest.raises(Ran) as ran:
        client.execute("p", "sh", "-c", "echo no; exit 4")
    assert (ran.value.code, "no" in ran.value.output) == (4, True)
    assert client.execute("p", "head", "-c", "5", stdin="words") == "words"


def test_quota_refuses_one_pod_too_many(server: PodApiServer, client: KubernetesClient) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}
    post(server, "/api/v1/namespaces/default/resourcequotas", quota)
    client.apply(pod("a", *WAITS))
    with pytest.raises(Refused, match=r"exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"):
        client.apply(pod("b", *WAITS))
    server.store.remove(QUOTAS, "default", "q")
    client.apply(pod("b", *WAITS))


def test_kubectl_prints_tables_waits_and_describes(server: PodApiServer, tmp_path: Path) -> None:
    client = Kubectl(write_kubeconfig(tmp_path / "config", server.kubeconfig()))
    client.apply(pod("p", *WAITS))
    client.run("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    assert re.search(r"NAME +READY +STATUS +RESTARTS +AGE\np +1/1 +Running +0 +\d+s", client.run("get", "pods"))
    assert "while :; do sleep 0.02; done" in client.run("describe", "pod", "p")
    assert "NodeSelector is a selector" in client.run("explain", "pod.spec.nodeSelector")
    assert "Server Version: v1.37.0" in client.run("version")


def test_official_client_gets_generated_names_and_pages(server: PodApiServer, tmp_path: Path) -> None:
    client = OfficialClient(write_kubeconfig(tmp_path / "config", server.kubeconfig()))
    made = pod("p", "true")
    del made["metadata"]["name"]
    made["metadata"]["generateName"] = "some-"
    names = {client._core.create_namespaced_pod("default", made).metadata.name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("some-") for name in names)
    page = client._core.list_namespaced_pod("default", limit=2)
    rest = client._core.list_namespaced_pod("default", limit=2, _continue=page.metadata._continue)
    assert {item.metadata.name for item in [*page.items, *rest.items]} == names
    client.close()


# -- what clients hide: plain HTTP -------------------------------------------------------------------------------------


def call(server: PodApiServer, path: str, body: Any = None, method: str | None = None, token: str = "") -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(server.url + path, data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def post(server: PodApiServer, path: str, body: Any) -> Any:
    return call(server, path, body)


def watched(server: PodApiServer, query: str) -> Iterator[dict[str, Any]]:
    with urllib.request.urlopen(f"{server.url}/api/v1/namespaces/default/pods?watch=1&{query}", timeout=60) as lines:
        for line in lines:
            yield json.loads(line)


PODS_PATH = "/api/v1/namespaces/default/pods"


def test_watch_from_a_forgotten_version_gets_410(server: PodApiServer) -> None:
    version = call(server, PODS_PATH)["metadata"]["resourceVersion"]
    post(server, PODS_PATH, pod("p", "true"))
    server.store.forget_changes()
    (event,) = watched(server, f"resourceVersion={version}")
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_watch_bookmarks_the_newest_version(server: PodApiServer) -> None:
    server.api.bookmark_seconds = 0.05
    version = call(server, PODS_PATH)["metadata"]["resourceVersion"]
    events = watched(server, f"resourceVersion={version}&allowWatchBookmarks=true")
    post(server, "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "c"}})
    event = next(events)
    assert event["type"] == "BOOKMARK"
    assert int(event["object"]["metadata"]["resourceVersion"]) > int(version)


def test_watch_drops_and_swaps_events_on_request(server: PodApiServer) -> None:
    version = call(server, PODS_PATH)["metadata"]["resourceVersion"]

    def named(name: str) -> Any:
        return lambda change: change.after is not None and change.after["metadata"]["name"] == name

    server.kubelet.let_schedule("no node")
    for name in ("a", "b", "c"):
        post(server, PODS_PATH, pod(name, "true"))
    wait_for(lambda: all(each["status"].get("conditions") for each in server.pods()), "the kubelet")
    whole: list[Change] = server.store.changes(PODS, int(version))
    server.faults.drop_events(9, named("b"))
    server.faults.swap_events()
    events = watched(server, f"resourceVersion={version}&timeoutSeconds=1")
    names = [event["object"]["metadata"]["name"] for event in events]
    assert len(whole) == 6
    assert sorted(names) == ["a", "a", "c", "c"]
    assert names[-1] == "a"


def test_object_that_stops_being_selected_is_deleted_for_its_watch(server: PodApiServer) -> None:
    server.kubelet.let_schedule("no node")
    post(server, PODS_PATH, pod("p", "true"))
    version = call(server, PODS_PATH)["metadata"]["resourceVersion"]
    events = watched(server, f"resourceVersion={version}&labelSelector=app%3Dp")
    server.store.change(PODS, "default", "p", lambda item: item | {"metadata": item["metadata"] | {"labels": {}}})
    kinds = [next(events)["type"]]
    if kinds == ["MODIFIED"]:  # the kubelet was late to say that there is no node
        kinds = [next(events)["type"]]
    assert kinds == ["DELETED"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(ApiStatus(429, "TooManyRequests", "slower", retry_after=7), 429), (ApiStatus(500, "InternalError", "no"), 500)],
)
def test_requests_are_refused_on_request(server: PodApiServer, status: ApiStatus, code: int) -> None:
    server.faults.refuse(status, verb="create", plural="pods")
    with pytest.raises(HTTPError) as refused:
        post(server, PODS_PATH, pod("p", "true"))
    refused.value.close()
    assert refused.value.code == code
    assert refused.value.headers.get("Retry-After") == ("7" if code == 429 else None)
    post(server, PODS_PATH, pod("p", "true"))


def test_server_that_was_away_has_forgotten_nothing_and_its_pods_ran_on(server: PodApiServer) -> None:
    post(server, PODS_PATH, pod("p", *WAITS))
    wait_for(lambda: begun(server, "p"), "the pod")
    url = server.url
    server.stop()
    with pytest.raises(OSError):
        call(server, PODS_PATH)
    server.start()
    assert server.url == url
    (found,) = call(server, PODS_PATH)["items"]
    assert found["status"]["phase"] == "Running"


def test_token_may_do_what_its_rules_allow(tmp_path: Path) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    with PodApiServer(tmp_path, tokens={"reader": rules, "all": None}) as server:
        assert call(server, PODS_PATH, token="reader")["items"] == []
        for token, code in (("reader", 403), ("", 401), ("other", 401)):
            with pytest.raises(HTTPError) as refused:
                call(server, PODS_PATH, pod("p", "true"), token=token)
            refused.value.close()
            assert refused.value.code == code
        call(server, PODS_PATH, pod("p", "true"), token="all")


def test_pod_without_a_node_waits_and_one_on_a_lost_node_says_nothing_more(server: PodApiServer) -> None:
    server.kubelet.let_schedule("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    post(server, PODS_PATH, pod("p", *WAITS))

    def conditions() -> list[Any]:
        return server.pods()[0]["status"].get("conditions") or []

    wait_for(lambda: [each.get("reason") for each in conditions()] == ["Unschedulable"], "the condition")
    server.kubelet.let_schedule()
    wait_for(lambda: begun(server, "p"), "the pod")
    server.kubelet.run_of(server.pods()[0]).lose_node()
    assert server.pods()[0]["status"]["phase"] == "Running"
    call(server, f"{PODS_PATH}/p", method="DELETE")
    assert server.pods()[0]["metadata"]["deletionTimestamp"]


@pytest.mark.parametrize("how", ["evicted", "oom"])
def test_pod_that_is_evicted_or_runs_out_of_memory_says_so(server: PodApiServer, how: str) -> None:
    post(server, PODS_PATH, pod("p", *WAITS))
    wait_for(lambda: begun(server, "p"), "the pod")
    run = server.kubelet.run_of(server.pods()[0])
    if how == "evicted":
        run.evict("The node was low on resource: memory.")
    else:
        run.kill("OOMKilled")
    wait_for(lambda: server.pods()[0]["status"]["phase"] == "Failed", "the end")
    status = server.pods()[0]["status"]
    if how == "evicted":
        assert (status["reason"], status["message"]) == ("Evicted", "The node was low on resource: memory.")
    else:
        assert status["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled"
        assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


def test_pod_that_is_taken_away_before_it_has_a_node_never_runs(server: PodApiServer) -> None:
    server.kubelet.let_schedule("no node")
    post(server, PODS_PATH, pod("p", *WAITS))
    wait_for(lambda: server.pods()[0]["status"].get("conditions"), "the condition")
    run = server.kubelet.run_of(server.pods()[0])
    server.store.remove(PODS, "default", "p")
    server.kubelet.let_schedule()
    run.thread.join()
    assert run.containers == []
