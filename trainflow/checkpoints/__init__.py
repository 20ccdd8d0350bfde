"""Checkpoints: the ledger that can prove what a model was trained on, and the files it speaks of.

Purpose: a chain of checkpoints in which every partition was trained once, in order, none missing, whatever is killed
whenever. The ledger in the store is the truth; the metadata database and MLflow only mirror it.

Invariants
- Creating ledger entry N+1 exclusively *is* the commit and *is* the fence. There is no other lock, lease or marker.
- An entry is there whole or not at all; it holds the digest of the entry before it; it is never changed or deleted.
- The state is a pure fold of the entries. The rules that refuse an entry when it is written are those that call a
  ledger corrupt when it is read. Snapshots are rebuildable and never believed without the entry they end with.
- Reading the head takes a few reads however long the ledger is: what grows with the chain lies in pages that only those
  read who ask for old checkpoints. Which pages there are depends on the entries alone.
- A chain is registered with its upstream before the first entry that speaks of it, so that the upstream keeps what it
  needs.
- Past a stop only a person goes: the checkpoint that gates refused, a skip, a rewind, or a resume.
- What is written after an entry - the mark, snapshots, pages, sealed artifacts, other chains - proves that there was
  one: where it is missing, nothing is appended and nothing deleted.
- A checkpoint's files are durable before its entry is created, and are none that its trainer may still have open; only
  a prune entry allows them to be deleted, and it comes first. What a sweep cannot parse stays.
- Nothing here reads a clock or a database, and a local store imports neither fsspec nor anything else of weight.

A change breaks this when it writes an entry any other way than through `Ledger.append`, lets the fold accept what the
writer refuses (or the reverse), changes the fold without a new `snapshots.SNAPSHOT_FORMAT`, or deletes before it
records.

Reading order
- `chain` (the names of a chain and of its files), `transfers` (files on their way to a store and from it),
  `file_progress` (how far that is), `verified_artifacts` (what of a checkpoint was looked at before) and
  `artifact_cache` (files that this machine keeps);
- `ledger`: entries, the rules they obey, the state they fold to, and the files they lie in (of a
  `trainflow.storage.store`);
- `saves`: how far an attempt is inside its split, and where the next one resumes;
- `commit`: from the files of a trainer to the next entry: gates, fence, artifacts;
- `ledger_changes`: what a person or a policy does to a chain: fork, rewind, promote, skip, regrid, prune, import;
- `stages`: chains that start from the checkpoints of another chain;
- `upkeep`: retention, garbage, partitions that were published again, holes that can be repaired;
- `audit`: prove what a chain was trained on, sharing no arithmetic with the fold; lineage; comparison.
"""
