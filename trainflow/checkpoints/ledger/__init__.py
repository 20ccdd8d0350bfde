"""The ledger of a chain: an append-only log, one exclusively created file an entry, and the state it folds to.

Invariants: an entry is whole or not there; it holds the digest of the one before; `rules` refuses when it is written
what `fold` calls corrupt when it is read; nothing is appended to a ledger that may have lost entries (`completeness`).

Reading order: `entries` (what can happen to a chain), `state` (what a chain is), `rules` and `tiling` (what may
follow), `fold` (what it changes), `entry_files` (the files), `ledger` (read and append), `snapshots`, `pages` and
`page_reader` (reading the head costs the same however long the ledger is), `ancestors` (the line back from the head),
`completeness` and `loss_evidence` (has anything been lost?).
"""
