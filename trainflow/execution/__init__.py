"""The worker side: processes that run user code. None of them ever holds a database connection.

Reading order: `dag_files` (a pipeline file becomes DAGs), `parse` (and DAGs become documents), `parse_main` (that for a
command), `check_stores_main`, `execution_api_client` (requests to the execution API, through outages),
`http_api_client` (the same to an API server), `worker_heartbeats` (a worker says that it lives), `remote_attempt` (what
a supervisor says to it), `code_bundles` (how a host without an engine has the code), `task_instance` (what task code
sees), `progress_reports` (what it says of how far it is), `stop_signal`, `task_runner` (one attempt from claim to
outcome), `attempt_ending` (what an exception means, and is another try of use?), `attempt_main` (the process that runs
it: forked, or an interpreter of its own), `leftover_processes` (nothing of it is left), `thread_watch`, `forkserver`
with `forked_children`, `spare_children` (those that wait) and `prefork` (what is done before the fork), `ranks`
(processes on several hosts that train together).

Invariant: an attempt says how it ended in one message, once; what it started has ended before that.

A change breaks this when an attempt can end as success without its outcome having been accepted, when something that
was told to stop can end as success, or when a module of this package imports what most tasks do not need.
"""
