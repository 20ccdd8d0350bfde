"""The ledger of a chain: an append-only log, one exclusively created file an entry, and the state it folds to.

Reading order: `entries` (what can happen to a chain), `state` (what a chain is, and what people call its checkpoints),
`rules` (what may follow), `fold` (what an entry changes), `entry_files` (bytes of entries and pages, read many at once,
and what one listing shows of them), `snapshots` (which keep reading the head at the same cost however long the ledger
is), `ledger_reader` and `ledger_writer` (read and append), `ancestors` (the line back from the head), `missing_entries`
and `missing_checkpoints` (has anything been lost?).

Invariants
- An entry is whole or not there, and holds the digest of the one before it.
- `rules` refuses when it is written what `fold` calls corrupt when it is read.
- A checkpoint's number means it for ever: no other one of its chain has it, then or later.
- Nothing is appended to a ledger that may have lost entries (`missing_entries`).

A new kind of entry is a class in `entries`, a rule in `rules` and a change of state in `fold`; CONTRIBUTING.md goes
through it. A change breaks this when the fold reads anything but entries, or when it changes without a new
`snapshots.SNAPSHOT_FORMAT`.
"""
