"""Which cluster is asked, and as whom: kubeconfig files, tokens, plug-ins, certificates, the account of a pod."""

from __future__ import annotations

import datetime
import json
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kubernetes_clients import Kubectl
from trainflow.clock import SystemClock
from trainflow.errors import EngineError
from trainflow.executors.kubernetes.cluster import Cluster, ClusterAway
from trainflow.executors.kubernetes.options import KubernetesOptions
from trainflow.testing.kubernetes_api.server import PodApiServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PodApiServer]:
    with PodApiServer(tmp_path / "pods", tokens={"good": None}) as server:
        yield server


def asks(config: Path, **options: Any) -> str:
    """Ask the cluster for its pods; the namespace that it is asked for."""
    cluster = Cluster(KubernetesOptions(kubeconfig=str(config), **options), SystemClock(), config.parent)
    try:
        cluster.list_pods(cluster.namespace, "")
        return cluster.namespace
    finally:
        cluster.close()


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_plug_in_gives_a_token_and_is_asked_again_when_it_expires(
    server: PodApiServer, tmp_path: Path, version: str
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "import json, os\n"
        "asked = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        f"open({str(tmp_path / 'calls')!r}, 'a').write('x')\n"
        "status = {'token': os.environ['WORD'], 'expirationTimestamp': os.environ['UNTIL']}\n"
        "print(json.dumps({'apiVersion': asked['apiVersion'], 'kind': 'ExecCredential', 'status': status}))\n"
    )
    exec: dict[str, Any] = {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "command": sys.executable,
        "args": [str(plugin)],
        "env": [{"name": "WORD", "value": "good"}, {"name": "UNTIL", "value": "2020-01-01T00:00:00Z"}],
        "interactiveMode": "Never",
    }
    config = write(tmp_path / "config", server.kubeconfig({"exec": exec}))
    assert asks(config) == "default"
    cluster = Cluster(KubernetesOptions(kubeconfig=str(config)), SystemClock(), tmp_path)
    cluster.list_pods("default", "")
    cluster.list_pods("default", "")
    cluster.close()
    assert (tmp_path / "calls").read_text() == "xxx"


def test_plug_in_that_fails_is_told_without_what_it_wrote(server: PodApiServer, tmp_path: Path) -> None:
    for code, told in (("raise SystemExit('log in first')", "log in first"), ("print('{}')", "with a token")):
        words = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": ["-c", code]}
        config = write(tmp_path / "config", server.kubeconfig({"exec": words}))
        with pytest.raises(EngineError, match=f"gives no credentials.*{told}"):
            asks(config)


def test_plug_in_beside_its_file_is_asked_over_tls_and_told_of_the_cluster(tmp_path: Path) -> None:
    certificates(tmp_path)
    plugin = tmp_path / "log-in"
    about = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    status = json.dumps({**about, "status": {"token": "good"}})
    plugin.write_text(f"#!/bin/sh\nprintf %s \"$KUBERNETES_EXEC_INFO\" > {tmp_path}/asked\necho '{status}'\n")
    plugin.chmod(0o755)
    exec = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./log-in",
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }
    tls = server_context(tmp_path)
    with PodApiServer(tmp_path / "pods", tokens={"good": None}, tls=tls) as server:
        config = write(tmp_path / "config", server.kubeconfig({"exec": exec}, ca_file=tmp_path / "ca.pem"))
        told = []
        for ask in (lambda: asks(config), lambda: Kubectl(config).run("get", "pods")):
            ask()
            told.append(json.loads((tmp_path / "asked").read_text()))
    assert told[0] == told[1]
    assert told[0]["spec"]["cluster"]["server"] == server.url


@pytest.mark.parametrize("user", [{"token": "t"}, {"exec": {"apiVersion": "v1", "command": "/never/run"}}])
def test_credentials_are_not_sent_without_tls(tmp_path: Path, user: dict[str, Any]) -> None:
    content = {
        "clusters": [{"name": "c", "cluster": {"server": "http://cluster.example:8080"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    with pytest.raises(EngineError, match=r"http://cluster\.example:8080 is reached without TLS.*https://"):
        asks(write(tmp_path / "config", content))


def test_wrong_token_is_an_outage(server: PodApiServer, tmp_path: Path) -> None:
    with pytest.raises(ClusterAway, match="answers 401: Unauthorized"):
        asks(write(tmp_path / "config", server.kubeconfig({"token": "bad"})))


def test_context_is_chosen_and_a_missing_one_is_named(server: PodApiServer, tmp_path: Path) -> None:
    content = server.kubeconfig({"token": "good"})
    other = {"name": "other", "context": {"cluster": "test", "user": "test", "namespace": "kube-system"}}
    content["contexts"].append(other)
    config = write(tmp_path / "config", content)
    assert asks(config, context="other") == "kube-system"
    assert asks(config, context="other", namespace="default") == "default"
    with pytest.raises(EngineError, match="Context 'none' not found"):
        asks(config, context="none")
    with pytest.raises(EngineError, match=r"there is no .*nowhere"):
        asks(tmp_path / "nowhere")


def test_several_files_are_one_and_their_paths_are_their_own(server: PodApiServer, tmp_path: Path) -> None:
    content = server.kubeconfig()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "token").write_text("good")
    users = [{"name": "test", "user": {"tokenFile": "token"}}]
    first = write(tmp_path / "deep" / "users", {"users": users})
    second = write(tmp_path / "clusters", content | {"users": [{"name": "test", "user": {"token": "bad"}}]})
    assert asks(Path(f"{first}:{second}")) == "default"


def test_account_of_a_pod(server: PodApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightkube.config.kubeconfig as configuration

    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", server.url.rpartition(":")[2])
    certificates(tmp_path)
    for name, text in (("token", "good"), ("namespace", "ml"), ("ca.crt", (tmp_path / "ca.pem").read_text())):
        (tmp_path / name).write_text(text)
    made = configuration.KubeConfig.from_service_account(tmp_path)
    monkeypatch.setattr(configuration.KubeConfig, "from_service_account", lambda *_: made)
    server.stop()
    server.tls = server_context(tmp_path)
    server.start()
    cluster = Cluster(KubernetesOptions(), SystemClock(), tmp_path)
    assert cluster.namespace == "ml"
    cluster.list_pods("default", "")
    cluster.close()


def test_certificate_of_a_client(tmp_path: Path) -> None:
    certificates(tmp_path)
    with PodApiServer(tmp_path / "pods", tokens={"good": None}, tls=server_context(tmp_path)) as server:
        user = {"client-certificate": "client.pem", "client-key": "client.key"}
        config = write(tmp_path / "config", server.kubeconfig(user, ca_file=tmp_path / "ca.pem"))
        assert asks(config) == "default"
        assert Kubectl(config).run("get", "pods") == ""
        none = write(tmp_path / "none", server.kubeconfig({}, ca_file=tmp_path / "ca.pem"))
        with pytest.raises(ClusterAway, match="401"):
            asks(none)


def server_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def certificates(folder: Path) -> None:
    """An authority, and what it has signed: a server's and a client's certificate."""
    from ipaddress import IPv4Address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)
    root = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    for name in ("ca", "server", "client"):
        key = root if name == "ca" else ec.generate_private_key(ec.SECP256R1())
        subject = issuer if name == "ca" else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(True, False, False, False, False, name == "ca", name == "ca", False, False)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(name == "ca", None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
            .sign(root, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{name}.key").write_bytes(key.private_bytes(*form))
