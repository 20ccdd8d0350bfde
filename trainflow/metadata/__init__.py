"""The metadata database: all SQL of the project, and nothing but SQL and what one transaction needs.

Purpose: remember runs, task instances, attempts, XComs, waits and what is still to be delivered. It is not the truth
about training (that is the ledger): dropped, it is made anew and the chains go on at their heads.

Reading order: `column_types`, `models` (tables and the invariants that live in their indexes; `api_models`: those of
the API server), `bound_parameters`, `database` (one writer, transactions), `transaction_retries` (what may be done
again), `fast_path` and `fast_connection` (statements past SQLAlchemy; on PostgreSQL by `postgres_pipeline`,
`server_connections`: how connections to servers begin, and when they count as lost; `sqlalchemy_internals`: what that
needs to know of it), `schema` (creation and migration), `sql_text` (statements that need no SQLAlchemy) and
`sqlite_reader` (a file that is read without it), `change_notices` (changes told to other processes), then `queries`,
one module for each noun; `leases` (which parts have been silent for too long); `run_creation` (how runs come to be);
`execution_service`, which answers attempts in one transaction each (`attempt_claims`: their first request;
`attempt_credentials`: what those on other hosts have to prove; `applied_change`: what a request has changed, for what
decides next); `exit_judgement` and `retry_policy` decide what their ends mean and `attempt_outcomes` carries it out.

Every function takes an open connection first and never commits; what opened the transaction does. A state is
changed by `move` of `queries.task_queries` and of `queries.run_queries` only.

A change breaks this when a state is written by any other statement, when a query reads the clock, or when user code
is imported.
"""
