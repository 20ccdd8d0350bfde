"""SQL that asks and writes, one module for each noun. Every function takes an open connection first, and none commits.

Reading order: `run_queries`, `queued_run_queries` (which runs may start), `task_queries`, `scheduled_queries` (which
tasks are queued next), `in_flight` (what executors have), `trigger_queries`, `xcom_queries`, `dag_queries`,
`pool_queries`, `queueing_lock` (who may queue at the same time), `service_queries` (parts of the control plane),
`worker_queries` (workers), `service_list_queries` (which of both are alive, as people see them), `drain_queries` (what
takes nothing new), `fleet_queries` (what waits over all DAGs), `outbox_queries` and `notification_queries` (what is
still to be told), `attempt_queries`, `curve_queries` (what attempts reported), `status_queries` (what people ask),
`live_queries` (whether something of that has changed), `page_queries` (a part of a long list), `cleanup_queries` (what
is deleted); of the API server: `token_queries`, `event_queries` (who did what), `idempotency_queries` (what is done
once).

`status_queries`, `service_list_queries` and `drain_queries` are text (`sql_text`) and import no SQLAlchemy: what reads
them takes less time than importing that.

A change breaks this when a state is written by anything but the `move` of `task_queries` and of `run_queries`.
"""
