"""Runs of chains as events of OpenLineage: a job is a stage, its inputs are the table and the checkpoint before, its
output is the next checkpoint.

Reading order: `events` (what is said, and that in OpenLineage's words; pure), `transport` (where they go).

Invariants
- An event depends on what is in the database alone: delivered again it is the same, with the same run id.
- Nothing here is imported while `[openlineage]` is off, nor by an attempt.
- No secret is in an event: addresses lose their credentials, options of stores are never asked for.

A change breaks this when an event depends on the time of its delivery, or when a facet of OpenLineage's own has a key
that its schema does not know.
"""
