"""What a person can do: one function each, called by the command line and by whatever else lets a person act.

Reading order: `start` (train a file: as the engine, through the one that is alive, in the background), `first_runs`
(which runs are begun), `engine_client` (follow an engine that is alive), `detached_start` (a process in the
background), `stop` (end it), `execute_workload` (run one attempt for an engine elsewhere), `celery_worker` (run many),
`worker_restart` (as the build that is installed by then), `page` (where pages are served), `chains` (decisions about a
chain, each an entry of its ledger), `runs`, `marking`, `dags`, `pools`, `fleet` (what takes nothing new), `tokens`,
`database` and `mlflow_server`.

Invariants
- Nothing here writes to a terminal or reads from one: values in, values out, errors from `trainflow.errors`.
- Who acts, and when, is passed in.
- What destroys or decides has a `plan_…` beside it, which changes nothing.

A change breaks this when a command can do what no function here does, or when a function knows who called it.
"""
