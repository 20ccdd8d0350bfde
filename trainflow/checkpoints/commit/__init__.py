"""Commit a checkpoint: from the files a trainer wrote to the ledger entry that makes them the head.

Reading order: `request` (what a run wants), `output_checks` and `sealed_files` (what a trainer left), `artifacts`,
`metric_names`, `conditions`, `gates` and `gate_verdicts` (may it be committed?), `fence` (is it next on the chain?),
`commit` (the named steps), `gate_outcomes` (the entry that a verdict comes to), `split_summary`, `saves` (inside a
split).

Invariants
- Files are durable and out of the trainer's reach before their entry is created.
- Only a child of the head is committed.
- The steps can be cut off between any two of them, and the next attempt completes or repeats them.

A change breaks this when a step after the entry is needed for the checkpoint to exist, or when a step before it leaves
something that another attempt takes for its own.
"""
