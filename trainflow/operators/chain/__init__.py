"""Parts that the tasks of one run of a chain share: from which head it goes on, and what it tells.

Reading order: `head` (what the checkpoint task hands to the others), `chain_operator` (the way from there into ledger
and split), `storage_options`, `start_weights` (where a stage's weights come from, adopted ones
included), `parent` (their files), `automatic_rewinds` (what a run takes back before it begins), `run_conf`, `notices`
(what people are told).

Invariants
- What is handed over is small JSON, and none of it is secret: options for storage never leave their process.
- Who asks the ledgers again gets the same answer, unless a person has rewound or pruned meanwhile.

A change breaks this when a default depends on the time of day, or when a task trusts what another one handed over for
what only the ledger knows.
"""
