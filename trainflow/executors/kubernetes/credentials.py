"""Which cluster, and who asks it: kubeconfig files and the service account of a pod, as lightkube reads them.

And what it leaves out: several files in KUBECONFIG, and plug-ins of `client.authentication.k8s.io/v1`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Generator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainflow.clock import Clock
from trainflow.errors import EngineError
from trainflow.executors.kubernetes.options import KubernetesOptions
from trainflow.settings.api_address import is_loopback

if TYPE_CHECKING:
    import httpx2
    from lightkube.config.kubeconfig import SingleConfig
    from lightkube.config.models import Cluster, UserExec

_DEFAULT_FILE = "~/.kube/config"
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
#: a token is asked for anew this long before it expires
_EARLY = timedelta(seconds=60)
_PLUGIN_SECONDS = 60.0


def cluster_config(options: KubernetesOptions, environ: Mapping[str, str], root: Path) -> SingleConfig:
    """The cluster that is configured. Raises EngineError in the words of what cannot be read."""
    from lightkube import KubeConfig
    from lightkube.core.exceptions import ConfigError

    given = options.kubeconfig or environ.get("KUBECONFIG")
    try:
        if not given and options.context is None and environ.get("KUBERNETES_SERVICE_HOST"):
            found = KubeConfig.from_service_account().get()
        else:
            paths = [Path(root, path).expanduser() for path in (given or _DEFAULT_FILE).split(os.pathsep) if path]
            found = KubeConfig.from_dict(_merged_files(paths)).get(options.context)
    except (ConfigError, KeyError, OSError, TypeError, ValueError) as error:
        raise EngineError(f"the configuration of the cluster cannot be read: {error}") from error
    assert found is not None
    return found


def _merged_files(paths: list[Path]) -> dict[str, Any]:
    """Several files as one, as kubectl reads them: what is named first counts. Paths in them are relative to each."""
    import yaml

    merged: dict[str, Any] = {"clusters": [], "contexts": [], "users": []}
    there = [path for path in paths if path.is_file()]
    if not there:
        raise OSError(f"there is no {' or '.join(map(str, paths))}")
    for path in there:
        content = yaml.safe_load(path.read_text()) or {}
        merged["current-context"] = merged.get("current-context") or content.get("current-context")
        for kind in ("clusters", "contexts", "users"):
            names = {each["name"] for each in merged[kind]}
            for each in content.get(kind) or ():
                if each["name"] not in names:
                    merged[kind].append(_with_absolute_files(each, kind[:-1], path.parent))
    return merged


def _with_absolute_files(entry: dict[str, Any], kind: str, folder: Path) -> dict[str, Any]:
    held = dict(entry.get(kind) or {})
    for key in _FILES:
        if held.get(key):
            held[key] = str(folder / held[key])
    plugin = held.get("exec")
    if isinstance(plugin, dict) and "/" in str(plugin.get("command")):
        # a name alone is looked for in PATH
        held["exec"] = {**plugin, "command": str(folder / plugin["command"])}
    return {**entry, kind: held}


def connection_to(config: SingleConfig, clock: Clock) -> httpx2.Client:
    """A client whose requests are authenticated. Raises EngineError."""
    import httpx2
    from lightkube.config.client_adapter import ConnectionParams
    from lightkube.core.exceptions import ConfigError

    _check_that_it_is_encrypted(config)
    try:
        parameters = ConnectionParams(timeout=httpx2.Timeout(10.0)).httpx_params(config)
        if config.user is not None and config.user.exec is not None:
            parameters["auth"] = _plugin_of(config.user.exec, _told_of(config.cluster), clock)
        return httpx2.Client(**parameters)
    except (ConfigError, OSError, ValueError) as error:
        raise EngineError(f"the configuration of the cluster cannot be used: {error}") from error


def _check_that_it_is_encrypted(config: SingleConfig) -> None:
    """Raise EngineError where credentials would be read on their way. kubectl leaves them out there, without a word."""
    address = urlsplit(config.cluster.server)
    user = config.user
    has_credentials = user is not None and any((user.exec, user.token, user.token_file, user.password))
    if has_credentials and address.scheme != "https" and not is_loopback(address.hostname or ""):
        raise EngineError(
            f"the cluster {config.cluster.server} is reached without TLS, and credentials are not sent like that "
            "(kubectl sends none either): its 'server' has to begin with https://"
        )


def _told_of(cluster: Cluster) -> dict[str, Any]:
    """What a plug-in is told of the cluster that it is asked for, as by kubectl with `provideClusterInfo`."""
    data = cluster.certificate_auth_data
    if data is None and cluster.certificate_auth:
        data = base64.b64encode(Path(cluster.certificate_auth).read_bytes()).decode()
    told: dict[str, Any] = {"server": cluster.server, "config": None}
    if data:
        told["certificate-authority-data"] = data
    if cluster.insecure:
        told["insecure-skip-tls-verify"] = True
    return told


def _plugin_of(plugin: UserExec, cluster: Mapping[str, Any], clock: Clock) -> httpx2.Auth:
    import httpx2

    class PluginAuth(httpx2.Auth):
        """A token from a program, kept until it expires or is refused."""

        token: str | None = None
        expires: datetime | None = None

        def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
            fresh = self.token is None or (self.expires is not None and self.expires <= clock.now() + _EARLY)
            if fresh:
                self.token, self.expires = _token_from(plugin, cluster)
            request.headers["Authorization"] = f"Bearer {self.token}"
            response = yield request
            if response.status_code == 401 and not fresh:
                self.token, self.expires = _token_from(plugin, cluster)
                request.headers["Authorization"] = f"Bearer {self.token}"
                yield request

    return PluginAuth()


def _token_from(plugin: UserExec, cluster: Mapping[str, Any]) -> tuple[str, datetime | None]:
    """What the program says, and until when it is good. Raises EngineError."""
    asked = {
        "apiVersion": plugin.apiVersion,
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": cluster},
    }
    environ = dict(os.environ) | {each.name: each.value for each in plugin.env or ()}
    environ["KUBERNETES_EXEC_INFO"] = json.dumps(asked)
    words = [plugin.command, *(plugin.args or ())]
    try:
        ran = subprocess.run(
            words, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PLUGIN_SECONDS, check=True
        )
        status = json.loads(ran.stdout)["status"]
        token, expires = str(status["token"]), status.get("expirationTimestamp")
        return token, datetime.fromisoformat(expires) if expires else None
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        why = said.decode(errors="replace").strip()
        raise EngineError(f"the plug-in {plugin.command} gives no credentials: {why}") from None
    except (ValueError, KeyError, TypeError):
        # what it said may hold a secret
        raise EngineError(f"the plug-in {plugin.command} gives no credentials with a token") from None
