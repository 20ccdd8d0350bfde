"""What a terminal shows while a pipeline trains: a panel that is redrawn, or a line for each event.

Reading order: `session` (from the start to the end), `display` (panel or lines?), `lines` (what is said), `panel` and
`stages_panel` (what is drawn).

Invariant: all of it is drawn from the values of `trainflow.insight.progress`; nothing here reads database or ledger.

A change breaks this when a pipeline trains slower because it is watched, or when something is said only in the panel.
"""
