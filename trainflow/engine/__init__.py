"""The engine: the one place that composes scheduler, executor, triggerer, DAG processor and mirror into a process.

Reading order: `startup` (what is needed before the engine is imported: parts, stop signals, an early forkserver),
`lock` (one engine a home), `engine` (its parts, and the loop), `loop_utilization` (how busy that is), `scheduling`
(scheduler, executors, and the line to other engines), `api_server_process`, `home_upkeep` (what is done for the home:
logs and leftovers), `run_cleanup` (runs that ended long ago), `log_uploads` (logs → store), `log_backlog` (what that
lacks of before), `outbox_dispatcher` (what
leaves the project), `channel_dispatcher` (one channel of the outbox), `mlflow_dispatcher` (outbox → MLflow), `channels`
(the others that are on), `openlineage_dispatcher` (outbox → OpenLineage), `telemetry_dispatcher` (outbox →
OpenTelemetry), `page_links` (where pages are), `notifier` (notices → webhook, command, services). What a person does
with an engine is in `trainflow.actions`, what a person asks in `trainflow.insight`.

Invariants
- Everything turns on one reactor in one thread; only what talks to MLflow, to webhooks and to the store
  of logs has a thread of its own.
- An engine may be killed at any time: the next one goes on from database and ledger.

A change breaks this when a part waits for another one, or when the loop waits for something outside of the host.
"""
