"""The scheduler: the only one who decides what runs next. Several may run over one database.

Reading order: `loop` (a list of named phases, each one transaction, that read, ask the rules and carry out what they
say), `task_queue` (what is queued, and handed over), the rules, which are pure functions over values (`run_decision`,
`trigger_rules`, `queueing`, `executor_slots`), `error_containment` (one run that cannot be decided does not stop the
others), `recovery` (what a dead engine left), `idle_runs` (what the scheduler that was told does not go on with),
`lost_attempts` (who is not heard any more).

Invariant: it never runs user code; all it knows of a DAG is its document.

A change breaks this when a phase does two things that must not be seen apart in two transactions, when a rule reads
the clock or the database, or when something is counted in memory that the database can count.
"""
