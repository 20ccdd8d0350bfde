"""What is new since the last look, while a pipeline trains.

Reading order: `view` (what a look shows), `feed` (look again, at what has happened since), `ended_run` (sum up a run
that has ended).

Invariant: a look costs what is new and what is open, however long the history is.

A change breaks this when a look waits, or when two looks tell the same event twice.
"""
