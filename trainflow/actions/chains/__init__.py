"""What a person can decide about a chain. Each decision is written into its ledger, with who made it and why.

Reading order: `rewind`, `fork`, `resume` (a chain that a gate or its samples stopped), `promote` (an alias, and the
stages that start from what has it), `regrid` (samples cut otherwise), `repair` (holes that have arrived, a ledger of
which a part is lost for good), `prune` (give back space).

Invariant: what destroys or decides has two functions: `plan_…` says what would be done and changes nothing, the other
one does it.

A change breaks this when the plan and the deed decide by different rules, or when a decision leaves no entry.
"""
