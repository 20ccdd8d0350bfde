"""The engine: the one place that composes scheduler, executor, triggerer, DAG processor and mirror into a process.

Reading order: `lock` (one engine a home), `parts` (what each needs), `engine` (the loop), `mirror` (outbox → MLflow),
`beginning`, `following`, `follower` (who starts and watches), `situation`, `standing`, `why` (what is going on, and the
sentence about it), `outlook` (what the next run finds), `plan` (what comes), `trained`, `inspection`, `auditing`
(chain and samples side by side).

Everything turns on one reactor in one thread; only the courier to MLflow has a thread of its own.
"""
