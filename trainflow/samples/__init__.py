"""Samples: which partitions there are, which are ready and good, what the next split is, and its rows in order.

Purpose: answer "what comes after the watermark" from the storage alone, at a cost that grows with what is new.

Invariants:
- The same samples and watermark give the same split, whatever asks. Nothing is remembered between two questions, and a
  wait is measured from facts of the storage (when the first later partition became ready), so no database is needed.
- The splits of a chain tile time: each starts where the one before it ends, and what is between their partitions is a
  hole.
- A split names content: every file has a fingerprint, and the digest covers all of it.
- The order of the rows depends on (split, seed) and on nothing else: not on ranks, batch size, machine or the version
  of a library.
- Values arrive as they were stored: the columns of a split are known before training (`columns`), and no cast loses.
- Rows, types, nulls and ranges come from footers; data is read only where a footer does not know.

A change breaks this when it lets the time of asking move a boundary while all partitions are there, when it lists or
reads what lies before the watermark in proportion to its number, when it changes an order that positions were saved in
(`rows.order.SHUFFLE_ROWS`, the hashes), or when a message can show a storage option.

Reading order: `spec` (what a person says) · `partitions`, `pattern`, `grid`, `grid_change` (time and paths) · `table`
(what is there, ready and good) · `files` (one file: whole, read, the same) · `columns` (one type for each) · `splits`
(the decision, and what is handed from task to task) · `rows` (in order, for training) · `throughput` (how fast, how far
behind).
"""
