"""The engine: the one place that composes scheduler, executor, triggerer, DAG processor and mirror into a process.

Reading order: `lock` (one engine a home), `lease` (one process among others), `engine` (its parts, and the loop),
`scheduling` (scheduler and executor), `parsing_worker`, `home_cleanup` and `log_limits` (what is swept from the home),
`outbox_dispatcher` (what leaves the project), `mirrored_run` and `mirror_dispatcher` (outbox → MLflow), `notifier`
(notices → webhook and command). What a person does with an engine is in `trainflow.actions`, what a person asks in
`trainflow.insight`.

Everything turns on one reactor in one thread; only what talks to MLflow and to webhooks has a thread of its own.
"""
