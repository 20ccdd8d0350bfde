#!/bin/sh
# obstore 0.12.1 and s3fs 2026.9.0, given an endpoint that is no S3 and answers every request with status 200 and a page of
# HTML (a web server, a login page of a proxy): listing a folder of a bucket there raises nothing. For obstore it is empty,
# for s3fs a file. A wrong endpoint looks like an empty bucket.
#
# Seen:
#   obstore 0.12.1: []
#   s3fs 2026.9.0: ['bucket/folder']
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "obstore==0.12.1" "s3fs==2026.9.0"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

import obstore
import s3fs
from obstore.store import S3Store

PAGE = b"<html><body>Welcome!</body></html>"


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(PAGE)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


server = HTTPServer(("127.0.0.1", 0), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_port}"


def by_obstore():
    keys = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    store = S3Store("bucket", config={**keys, "endpoint": endpoint}, client_options={"allow_http": True})
    return list(store.list("folder").collect())


def by_s3fs():
    where = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    return s3fs.S3FileSystem(key="a", secret="b", client_kwargs=where).find("bucket/folder")


changed = False
for name, look, seen in (("obstore", by_obstore, []), ("s3fs", by_s3fs, ["bucket/folder"])):
    try:
        found = look()
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    print(f"{name} {version(name)}: {found}")
    changed |= found != seen
sys.exit(changed)
PYTHON
