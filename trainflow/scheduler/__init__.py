"""The scheduler: the only one who decides what runs next. Several may run over one database.

Rules are pure functions over values (`trigger_rules`, `run_decision`, `queueing`); `loop` is a list of named phases,
each one transaction, that read, ask the rules and carry out what they say; `workload` is what the executor is handed;
`recovery` looks after what a dead engine left; `stop_notice` says what people are told of a run that failed.

It never runs user code: all it knows of a DAG is its document.

A change breaks this when a phase does two things that must not be seen apart in two transactions, when a rule reads
the clock or the database, or when something is counted in memory that the database can count.
"""
