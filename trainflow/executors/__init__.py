"""Executors: hand a workload to where it runs, say how its process ended.

Reading order: `executor` (the contract), `configured` (those of `[executors]`, as one), `plugins` (kinds of them, and
what their tables may hold), `reactor` and `framed_socket` (how the control plane waits and talks), `execution_socket`
(where attempts of this host reach the execution API, and what they wrote down while there was none), `fork_or_spawn`
(the rule), `spawn`, `warm_workers` (one of them, and all), `attempt_process` and `local` (the local executor). Then
those whose attempts speak over HTTP: `remote` (what they have in common), `workload_process` (the smallest of them),
`celery`, `kubernetes` and `ray` (packages); and the other end, what runs attempts on a host without an engine:
`worker`, `handed_attempt` (one of them), `worker_thread`.

Slots in use are counted from the database, never here. Every report carries attempt and deferral number.

A change breaks this when an executor queues what it was handed in a second queue of its own, or when it believes an
exit code where the attempt has said nothing.
"""
