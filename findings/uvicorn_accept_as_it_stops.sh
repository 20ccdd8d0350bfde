#!/bin/sh
# Uvicorn 0.54.0 that is told to stop tells the connections that it knows to end. One that asyncio has accepted in that
# very turn of the loop becomes known a turn later, is not told, and is waited for until timeout_graceful_shutdown has
# passed; then it is left open, and its transport is collected as unclosed. With the default, no time-out, a client that
# keeps such a connection and says nothing keeps the server from ending.
#
# Seen (timeout_graceful_shutdown 2):
#   connection made before: ended at once, 0 left
#   connection accepted as it stops: ended after the time-out, 1 left
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "uvicorn==0.54.0"
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import logging
import socket
import sys
import time

import uvicorn

logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


async def application(_scope, receive, _send):
    await receive()


class Server(uvicorn.Server):
    async def main_loop(self):
        self.up.set()
        await self.end.wait()


async def stop(turns):
    """Connect, and stop so many turns of the loop later."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(application, lifespan="off", timeout_graceful_shutdown=2)
        server = Server(config)
        server.up, server.end = asyncio.Event(), asyncio.Event()
        serving = asyncio.ensure_future(server.serve([listener]))
        await server.up.wait()
        with socket.create_connection(listener.getsockname()):
            for _ in range(turns):
                await asyncio.sleep(0)
            server.end.set()
            began = time.monotonic()
            await serving
            waited = time.monotonic() - began >= 2
            return f"ended {'after the time-out' if waited else 'at once'}, {len(server.server_state.connections)} left"


before = asyncio.run(stop(5))
found = {asyncio.run(stop(turns)) for turns in range(4)}
print(f"connection made before: {before}")
late = "ended after the time-out, 1 left"
print(f"connection accepted as it stops: {late if late in found else sorted(found)}")
sys.exit(not (before == "ended at once, 0 left" and late in found))
PYTHON
