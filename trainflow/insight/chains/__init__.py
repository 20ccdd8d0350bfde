"""What can be asked about chains: ledger and samples side by side. Needs no database.

`checkpoints` (what was committed, and is it intact), `partitions` (what there is to train on, and what was trained),
`next_run` and `plan` (what comes), `chain_status` (where a chain stands), `sample_stop` (what stops it at its samples),
`audit`, `lineage`, `compare`, `dependents` (stages of other pipelines).
"""
