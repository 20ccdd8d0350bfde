"""The engine: the one place that composes scheduler, executor, triggerer, DAG processor and mirror into a process.

Reading order: `lock` (one engine a home), `lease` (one process among others), `engine` (its parts, and the loop),
`scheduling` (scheduler and executor), `parsing_worker`, `leftovers` (what is swept from the home), `outlet` (what
leaves the project), `mirrored_run`, `mirror` (outbox → MLflow), `notifier` (notices → webhook and command),
`beginning`, `ended_run`, `views`, `following`, `follower` (who starts and watches), `situation`, `standing`, `waiting`,
`why` (what is going on, and the sentence about it), `outlook` (what the next run finds), `plan` (what comes),
`repairing` (holes that have arrived), `trained`, `inspection`, `auditing` (chain and samples side by side),
`sample_stop` (a gap, or samples that are not good, and leaving them out).

Everything turns on one reactor in one thread; only what talks to MLflow and to webhooks has a thread of its own.
"""
