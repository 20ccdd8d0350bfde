"""What can be asked about chains: ledger and samples side by side. Needs no database.

Reading order: `checkpoints` (what was committed, and is it intact), `partitions` (what there is to train on, and what
was trained), `next_run` and `plan` (what comes), `chain_status` (where a chain is), `sample_stop` (what stops it at its
samples), `audit`, `lineage`, `compare`, `dependents` (stages of other pipelines).

A change breaks this when a question is answered by another rule than the one that the operators follow.
"""
