"""The ledger of a chain: an append-only log, one exclusively created file an entry, and the state it folds to.

Reading order: `entries` (what can happen to a chain), `entry_encoding`, `state` (what a chain is), `rules`, `tiling`
and `aliases` (what may follow, and what it takes along), `fold` (what it changes), `chain_listing` and `entry_files`
(the files), `ledger` (read and append), `snapshots`, `pages` and `page_reader` (reading the head costs the same however
long the ledger is), `ancestors` (the line back from the head), `completeness` and `loss_evidence` (has anything been
lost?).

Invariants
- An entry is whole or not there, and holds the digest of the one before it.
- `rules` refuses when it is written what `fold` calls corrupt when it is read.
- Nothing is appended to a ledger that may have lost entries (`completeness`).

A new kind of entry is a class in `entries`, a rule in `rules` and a change of state in `fold`; CONTRIBUTING.md goes
through it. A change breaks this when the fold reads anything but entries, or when it changes without a new
`snapshots.FORMAT`.
"""
