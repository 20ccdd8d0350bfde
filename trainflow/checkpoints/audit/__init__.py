"""Prove what a chain was trained on, from the raw entries alone.

Shares neither types nor rules nor arithmetic with `checkpoints.ledger`, so that a fault there is seen here.

Reading order: `raw_ledger`, `raw_chain`, `timeline`, `audit`. Beside it: `lineage` (every
partition the weights of a checkpoint learnt from, and two checkpoints side by side).

A change breaks this when a module of the proof imports the fold or its rules, or when something that was not looked at
counts as good.
"""
