"""What a person can ask: one function each, called by the command line and by whatever else shows it.

Reading order
- `snapshot` (what is going on with a DAG, from the database), `dag_selection` (which DAGs are meant), `status`
  (where each pipeline is), `explain` (why nothing trains, in one sentence), `database`;
- `chains`: checkpoints, partitions, what comes next, audit, lineage, comparison: from ledger and samples;
- `runs`: DAGs, runs, tasks, pools: from the metadata database;
- `progress` (what is new since the last look, while a pipeline trains) and `run_line` (a run that has ended).

Invariants
- An answer is a value that holds all that is to be shown; as JSON it has the keys that the commands document.
- Asking changes nothing. Nothing here draws: `trainflow.cli` does.

A change breaks this when an answer follows another rule than the run that acts on it, or when asking costs in
proportion to the history.
"""
