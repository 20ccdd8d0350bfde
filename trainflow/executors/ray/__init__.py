"""Attempts as Ray jobs: a job is a chance to claim, and nothing else.

Jobs are submitted, looked at and stopped over Ray's Jobs API, plain HTTP; Ray is never imported. What Ray says of a job
decides nothing about an attempt that has begun and lives: its heartbeats do. It tells early that one is dead, why one
waits, and that one was never begun.

Reading order: `job_request` (what a job is told, and where that is set), `jobs_thread` (the calls, and who makes them),
`executor` (with the rule: what the state of a job means).

A change breaks this when what claims an attempt is in anything that Ray lists, when an attempt fails because Ray was
away or has forgotten its job, or when the engine's loop waits for Ray.
"""
