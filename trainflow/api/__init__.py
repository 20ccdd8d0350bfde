"""The API server: what is asked of the control plane over HTTP.

One port, two processes, forked from one that has imported what both need. The *execution server* accepts every
connection, speaks TLS, and answers attempts on other hosts (the execution API). With the first request of another kind
it gives the connection away, its descriptor, to the *web server*: REST API and pages, for people and programs; that one
gives it back with the first request of an attempt. Over TLS, and from a proxy, it passes requests on instead, over a
UNIX socket. The web server is started when it is asked, and ends when it was asked nothing for ten minutes. So nothing
that people ask can keep a heartbeat from being heard. What only the web server needs is imported by it. Both read and
write the metadata database; the scheduler never waits for them, and no code of users is imported here.

Reading order: `server` (both, their sockets), `server_processes` (how they are forked and kept), `routed_connection`
and `message_frames` (which request goes where), `connection_transfer` (a connection changes hands), `plain_requests`
(those that need no parser); `execution_server`, `execution` (requests of attempts), `worker_rows` (what runs them),
`heartbeats`, `attempt_logs`, `attempt_tokens` (which attempt asks), `server_lease` (its lease, and whether a scheduler
lives), `scheduler_line` (what attempts change is told to the engine); `web_server`, `rest` (requests of people and
programs), `authentication`, `authorization` and `access_middleware` (who these are, what they may, what they pass),
`forwarded_headers` (proxies in between), `openapi`; `application` and `web_application` (what stands where),
`uvicorn_parts`, `http_server` and `connection_limits` (what a connection may take), `main` (the process that an engine
starts).

A change breaks this when what people ask can keep attempts waiting, when a request that proves nothing is read or
changes something, when a secret is written to a log or stands in an answer, when a request that is sent twice has the
effect of two, or when what a request says names a file.
"""

from trainflow.bootstrap import load_when_used

# libraries import them (Uvicorn, Starlette, SQLAlchemy, msgspec), for what this server has no use for or seldom: 3 MiB
load_when_used(
    "bz2", "html", "http.client", "importlib.metadata", "locale", "logging.config", "lzma", "msgspec.inspect"
)
load_when_used(*(f"sqlalchemy.dialects.postgresql.{name}" for name in ("asyncpg", "pg8000", "psycopg2cffi")))
load_when_used("sqlalchemy.dialects.sqlite.aiosqlite")
