"""The API server: what is asked of the control plane over HTTP, one process of its own.

Several applications stand on one port. The *execution API* is for attempts on other hosts, the *REST API* for people
and programs. Each has threads and connections to the database of its own: nothing that people ask can keep a heartbeat
from being heard. It reads and writes the metadata database; the scheduler
never waits for it, and no code of users is imported here.

Reading order: `execution` (requests of attempts), `workers` (what runs them), `heartbeats`, `attempt_logs`,
`known_tokens` (which attempt asks); `rest` (requests of people and programs); `authorization`, `authentication` and
`gate` (who these are, and what they pass), `forwarded` (proxies in between); `openapi`, `presence` (its lease, and
whether a scheduler lives), `scheduler_line` (what attempts change is told to the engine), `application` (what stands
where), `connections` (what each may take), `server` (socket, TLS, life), `main` (the process that an engine starts).

A change breaks this when what people ask can keep attempts waiting, when a request that proves nothing is read or
changes something, when a secret is written to a log or stands in an answer, when a request that is sent twice has the
effect of two, or when what a request says names a file.
"""
