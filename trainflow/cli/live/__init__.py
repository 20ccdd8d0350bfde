"""What a terminal shows while a pipeline trains: a panel that is redrawn, or a line for each event.

Reading order: `session` (from the start to the end), `panel` (what is drawn), `lines` (what is said).

Invariant: all of it is drawn from the values of `trainflow.insight.progress`; nothing here reads database or ledger.

A change breaks this when a pipeline trains slower because it is watched, or when something is said only in the panel.
"""
