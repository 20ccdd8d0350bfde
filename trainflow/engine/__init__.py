"""The engine: the one place that composes scheduler, executor, triggerer, DAG processor and mirror into a process.

Reading order: `lock` (one engine a home), `parts` (what each needs), `engine` (the loop), `mirror` (outbox → MLflow),
`status` and `follow` (what people see).

Everything turns on one reactor in one thread; only the courier to MLflow has a thread of its own.
"""
