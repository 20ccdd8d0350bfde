"""What a person can decide about a chain. Each is written into its ledger, with who decided it and why.

`promote` and `promoted_stages` (an alias, and the stages that start from what has it), `rewind`, `fork`, `prune` and
`sweep` (give back space), `resume` and `resume_samples` (a chain that a gate or its samples stopped), `regrid` and
`repair` (samples cut otherwise, holes that have arrived), `accept_loss` (a ledger of which a part is lost for good).

What destroys or decides has two functions: `plan_…` says what would be done and changes nothing, the other one does it.
"""
