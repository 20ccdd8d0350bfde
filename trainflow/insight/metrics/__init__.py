"""What a monitoring system is told of a project: numbers now, and counters.

Reading order: `metrics` (all of it, as one text: attempts and their requests to stores, each counted once; parts,
executors, queues, pools, what waits to be told), `chain_gauges` (where chains are).

Invariants
- A question costs what is new since the one before and what is under way, however long the history is.
- No store is listed on the way of an answer. What is known of a chain is read beside, and the answer says when.
- Labels name what a person has named (DAGs, chains, tasks, queues, pools) or one word of a few; never runs, attempts
  or checkpoints.

A change breaks this when a store that does not answer holds up an answer, when a counter goes down because history was
deleted, or when a label has a value for each run.
"""
