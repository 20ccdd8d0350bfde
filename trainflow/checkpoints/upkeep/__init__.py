"""Keep a chain in order over years: what is kept, what is given back, what changed behind it.

`retention` (which checkpoints keep their files), `orphans` and `garbage` (what dead attempts left), `spilled_splits`,
`republished` (partitions written again after training), `repairs` (holes that have arrived).
"""
