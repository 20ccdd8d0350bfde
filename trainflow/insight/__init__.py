"""What a person can ask: one function each, called by the command line and by whatever else shows it.

Reading order
- `status` (where is each chain, which DAGs are meant), `why` (why is nothing training, in one sentence; of one task:
  `why_task`), `snapshot` (what the database shows of a DAG: what these two look at), `refusals` (why tasks are not
  handed over, or not taken), `database`, `settings`;
- `chains`: checkpoints, partitions, what comes next, audit, lineage, comparison: from ledger and samples;
- `runs`: DAGs, runs, tasks, pools: from the metadata database;
- `metrics`: numbers for Prometheus;
- `live` (what has changed since the last look, for pages that are open);
- `fleet`: who is alive, what waits for them, what is drained;
- `progress` (what is new since the last look, while a pipeline trains) and `ended_runs` (a run that has ended);
- `settings` (those in force, and what is wrong with them), `cost` (what requests to stores cost, and what a chain
  keeps), `tokens` (of the API server).

Invariants
- An answer is a value that holds all that is to be shown; as JSON it has the keys that the commands document.
- Asking changes nothing. Nothing here draws: `trainflow.cli` does.

A change breaks this when an answer follows another rule than the run that acts on it, or when asking costs in
proportion to the history.
"""
