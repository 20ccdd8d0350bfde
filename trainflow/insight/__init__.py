"""What a person can ask: one function each, called by the command line and by whatever else shows it.

`snapshot` (what is going on with a DAG, from the database), `chain_status` (where its chain stands, from ledger and
samples), `explain` and `explain_task` (why nothing trains right now, in one sentence), `next_run` and `plan` (what
comes), `audit`, `partitions` and `trained` (chain and samples side by side), `sample_stop` (what stops a chain at its
samples), `progress`, `ended_run` and `progress_feed` (what is new since the last look).

Changes nothing. Draws nothing: `trainflow.cli` does.
"""
