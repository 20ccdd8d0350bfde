"""Chains that start from the checkpoints of another chain, their upstream.

`init_from` (as a pipeline says it), `start_checkpoint` (which upstream checkpoint the next run starts from, and how far
its split may go), `upstream_rewinds` (what an upstream took back, and how far a stage goes back for that), `dependents`
and `dependents_registry` (which chains an upstream keeps checkpoints for).
"""
