"""Chains that start from the checkpoints of another chain, their upstream.

Reading order: `init_from` (as a pipeline says it), `start_checkpoint` (which upstream checkpoint the next run starts
from, and how far its split may go), `upstream_rewinds` (what an upstream took back, and how far a stage goes back for
that), `dependents` (which chains an upstream keeps checkpoints for).

Invariants
- Which checkpoint a run starts from depends on the two ledgers alone, never on what happens to run first.
- A chain is registered with its upstream before its first entry that names it.

A change breaks this when "the newest" is asked for where a run was told a checkpoint, or when an upstream may prune
what a stage has not passed yet.
"""
