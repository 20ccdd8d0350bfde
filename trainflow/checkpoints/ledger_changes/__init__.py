"""What a person or a policy does to a chain. Each is one ledger entry, fenced by the head it was decided about.

Reading order: `fork` (branches, and where their stages are forked), `rewind` (what it takes along; skips; a chain that
has moved on is left alone), `promote`, `regrid`, `prune`, `manual_decisions` (about a chain that a gate stopped),
`import_spec` and `import_external` (begin with checkpoints that trainflow did not write), `accept_loss` (go on with a
ledger of which a part is lost).

A change breaks this when an action writes two entries where a kill between them leaves something half decided, when it
deletes before it records, or when it decides about a head other than the one its entry is fenced by.
"""
