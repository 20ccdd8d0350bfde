"""The metadata database: all SQL of the project, and nothing but SQL and what one transaction needs.

Purpose: remember runs, task instances, attempts, XComs, waits and what is still to be delivered. It is not the truth
about training (that is the ledger): dropped, it is made anew and the chains go on at their heads.

Reading order: `column_types`, `models` (tables and the invariants that live in their indexes), `database` (one writer,
transactions), `transaction_failures` (what may be done again), `sqlite_fast_path` (statements past SQLAlchemy, on
SQLite; `sqlalchemy_internals`: what that needs to know of it), `schema` (creation and migration), then one module of
queries for each noun: `run_creation` (how runs come to be), `run_queries`, `queued_run_queries` (which may start),
`task_queries`, `scheduled_queries` (which tasks are queued next), `in_flight` (what executors have), `trigger_queries`,
`xcom_queries`, `dag_queries`, `pool_queries`, `service_queries` (which engines are alive), `outbox_queries` and
`notification_queries` (what is still to be told), `attempt_queries`, `status_queries` (what people ask); then
`execution_service`, which answers attempts in one transaction each (`attempt_claims`: their first request);
`retry_policy` decides what their ends mean and `attempt_outcomes` carries it out.

Every function takes an open connection first and never commits; what opened the transaction does. A state is
changed by `task_queries.move` and `run_queries.move` only.

A change breaks this when a state is written by any other statement, when a query reads the clock, or when user code
is imported.
"""
