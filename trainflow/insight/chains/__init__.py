"""What can be asked about chains: ledger and samples side by side. Needs no database, where one is not there.

Reading order: `checkpoints` (what was committed, is it intact, what builds on it), `partitions` (what there is to train
on, and what was trained), `partition_states` (all of them as ranges, at no listing), `history` (all that a chain ever
had), `next_run` and `plan` (what comes, or what stops it), `chain_status` (where a chain is), `known_chains` (which
there are) and `overview` (all of them at a glance), `audit`, `lineage`, `lost_ledger_end` (checkpoints that only the
database remembers).

A change breaks this when a question is answered by another rule than the one that the operators follow.
"""
