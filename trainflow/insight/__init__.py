"""What a person can ask: one function each, called by the command line and by whatever else shows it.

- `snapshot` (what is going on with a DAG, from the database), `dag_selection` (all DAGs that are meant, and `why`
  nothing of them trains), `status` (where each pipeline is), `explain` (the sentence of `why`), `database`;
- `chains`: checkpoints, partitions, what comes next, audit, lineage, comparison: from ledger and samples;
- `runs`: DAGs, runs, tasks, pools: from the metadata database;
- `progress`: what is new since the last look, while a pipeline trains.

An answer is a value that holds all that is to be shown; as JSON it has the keys that the commands document. Changes
nothing. Draws nothing: `trainflow.cli` does.
"""
