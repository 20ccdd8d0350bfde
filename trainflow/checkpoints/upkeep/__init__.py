"""Keep a chain in order over years: what is kept, what is given back, what changed behind it.

Reading order: `retention` (which checkpoints keep their files), `shared_files` (files that
several checkpoints have), `garbage` (what dead attempts left), `changed_samples`
(partitions published again after training, holes that have arrived).

Invariants
- Retention is a union of what is to be kept: another line keeps more, never less.
- What cannot be parsed is left where it is, and so is what is younger than the grace time.

A change breaks this when it deletes what a ledger, a stage or a run under way still names.
"""
