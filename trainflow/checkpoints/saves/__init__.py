"""Intermediate saves: how far an attempt is inside its split, and which of them the next attempt resumes from.

Reading order: `training_identity` (which attempts go on from the saves of which), `intermediate_saves` (one save, those
of one training, the newest that is whole, and what is cleared away). When an attempt saves is decided in
`trainflow.operators.training`.

Invariants
- A save is whole or not there: its manifest is written last.
- The save that is furthest in the split is the newest, by whichever attempt and whatever the clocks said.
- A save is bound to what is trained: its parent, and a digest of whatever else the training depends on.

A change breaks this when a save can be taken for one of another training, or when one that an attempt resumes from is
deleted before it has made its own.
"""
