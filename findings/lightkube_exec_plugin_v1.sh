#!/bin/sh
# lightkube 1.0.1 takes credentials from a plug-in only where the kubeconfig says `client.authentication.k8s.io/v1beta1`
# (or v1alpha1). With `v1`, the version that Kubernetes has called stable since 1.22 and that kubectl and the official
# client take, each request raises ConfigError before it is sent. Nor does it hand KUBERNETES_EXEC_INFO to the plug-in.
#
# Seen:
#   v1beta1: asks as 'Bearer good'
#   v1: ConfigError: auth exec api version client.authentication.k8s.io/v1 not implemented
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "lightkube==1.0.1"
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ConfigError
from lightkube.resources.core_v1 import Pod

PLUGIN = "import json; print(json.dumps({'status': {'token': 'good'}}))"
seen = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        seen.append(self.headers["Authorization"])
        body = json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()


def asked(version):
    plugin = {"apiVersion": f"client.authentication.k8s.io/{version}", "command": sys.executable, "args": ["-c", PLUGIN]}
    config = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "c", "user": {"exec": plugin}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    try:
        list(Client(KubeConfig.from_dict(config)).list(Pod))
    except ConfigError as error:
        return f"ConfigError: {error}"
    return f"asks as {seen[-1]!r}"


first, second = asked("v1beta1"), asked("v1")
print(f"v1beta1: {first}")
print(f"v1: {second}")
sys.exit(not (first == "asks as 'Bearer good'" and "v1 not implemented" in second))
PYTHON
