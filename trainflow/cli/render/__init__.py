"""How facts are shown: tables and lines for people, JSON with stable keys for programs.

Reading order: `output` (tables, in a narrow terminal too, JSON, exit codes), then `runs` (runs, tasks, logs),
`ledger_entries`, `costs` and `file_progress`.

Invariant: what a person reads and what `--json` prints come from the same value.

A change breaks this when a function here asks for more than it is given.
"""
