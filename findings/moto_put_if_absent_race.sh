#!/bin/sh
# moto 5.2.5 answers a PUT with `If-None-Match: *` by looking whether the object is there and then making it, in two
# steps of a server with a thread for each request. Two that come at the same time may both be told that they made it.
# On S3 one of them gets 412. One write at a time (a lock around the WSGI application) ends that.
#
# Seen (the numbers differ):
#   as it is: 10 of 400 races had more than one winner
#   one write at a time: 0 of 400
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check "moto[server]==5.2.5"
"$folder/venv/bin/python" - <<'PYTHON'
import http.client
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

RACERS, RACES = 8, 400
SIGNED = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"


class Quiet(WSGIRequestHandler):
    def log_request(self, *_):
        pass


def raced(application, bucket):
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def put(path, body=b"", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        connection.request("PUT", path, body, {"Authorization": SIGNED, **headers})
        status = connection.getresponse().status
        connection.close()
        return status

    assert put(f"/{bucket}") == 200
    start = threading.Barrier(RACERS)

    def race(_):
        won = []
        for number in range(RACES):
            start.wait()
            won.append(put(f"/{bucket}/{number}", b"x", **{"If-None-Match": "*"}) == 200)
        return won

    with ThreadPoolExecutor(RACERS) as pool:
        found = list(pool.map(race, range(RACERS)))
    server.shutdown()
    return sum(sum(each) > 1 for each in zip(*found))


sys.setswitchinterval(1e-5)
moto = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()


def one_at_a_time(environ, start_response):
    with lock:
        return moto(environ, start_response)


as_it_is, locked = raced(moto, "first"), raced(one_at_a_time, "second")
print(f"as it is: {as_it_is} of {RACES} races had more than one winner")
print(f"one write at a time: {locked} of {RACES}")
sys.exit(not (as_it_is > 0 and locked == 0))
PYTHON
