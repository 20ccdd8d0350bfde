"""Commit a checkpoint: from the files a trainer wrote to the ledger entry that makes them the head.

Invariants: files are durable and out of the trainer's reach before their entry is created; only a child of the head is
committed; the steps can be cut off between any two of them.

Reading order: `request` (what a run wants), `output_checks` and `sealed_files` (what a trainer left), `artifacts`,
`conditions`, `gates` and `gate_verdicts` (may it be committed?), `fence` (is it next on the chain?), `commit` (the
named steps), `gate_outcomes` (the entry that a verdict comes to), `split_summary`, `saves` (inside a split).
"""
