"""Commit a checkpoint: from the files a trainer wrote to the ledger entry that makes them the head.

Reading order: `output_checks` (what a trainer left), `artifacts` (its files, taken over), `commit_decision` (what a run
wants, what gates say of it, whether it is next on the chain, and the entry that comes to), `gates` (conditions, and
what happens when one is not met), `commit` (the named steps).

Invariants
- Files are durable and out of the trainer's reach before their entry is created.
- Only a child of the head is committed.
- The steps can be cut off between any two of them, and the next attempt completes or repeats them.

A change breaks this when a step after the entry is needed for the checkpoint to exist, or when a step before it leaves
something that another attempt takes for its own.
"""
