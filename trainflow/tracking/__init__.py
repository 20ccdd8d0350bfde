"""The mirror: what happened, shown in MLflow. It is a copy: the ledger and the database
are the source, and an outage of MLflow never delays training.

    outbox row ── payload ──▶ client (a thread of the engine) ══ frames ══▶ deliverer (a process) ──▶ mirror ──▶ MLflow

Reading order: `deliveries` (what is said), `names` and `mlflow_fields` (what that is in MLflow's words; pure),
`mlflow_runs` (the calls about runs), `mlflow_models` (logged models and promotions), `deliverer` (the process;
`local_store_init` makes its store), `delivery_client` (the engine's end of it), `ui`.

How it looks in MLflow: experiment = pipeline; a parent run a chain, found by its tag `trainflow.run_key`, with one
metric curve over the watermark; a child run a DagRun, with params, metrics, one dataset (the split), tags, a
description that leads back to its page and lists the attempts of tasks that had trouble, and the checkpoint as a logged
model, with the one before as the run's input.
A chain is a registered model too; a promotion is a version of it and the alias on that version.

Invariants:
- A delivery is self-contained and idempotent: again, late, after another one, after a kill between any two calls, after
  the metadata database was lost: one MLflow run a DagRun, no point twice, no param written twice, heads never go back.
- Only `mlflow_runs`, `mlflow_models`, `local_store_init` and the process of `deliverer` import MLflow.
  The deliverer never sees the metadata database.
- A failure is an answer with a reason, never an exception in the engine.
- What user code logs through MLFLOW_RUN_ID stays: our metrics have prefixes, params that exist are left alone.

A change breaks this when a run is created without its key, when the mark `trainflow.delivered` is written before
anything else of its delivery, when a value depends on the time of delivery, or when a metric is named without prefix.
"""
