"""Executors: hand a workload to where it runs, say how its process ended.

Reading order: `executor` (the contract), `reactor` and `peer` (how the control plane waits and talks), `supervision`
(the socket on which attempts of this host reach the execution API), `spooled` (what they said while there was none),
`warm_spawn`, `warm_process`, `pid_watch`, `remains`, `held`, `memory` (who was killed for want of it), `blame` and
`local` (the local executor).

Slots in use are counted from the database, never here. Every report carries attempt and deferral number.

A change breaks this when an executor queues what it was handed in a second queue of its own, or when it believes an
exit code where the attempt has said nothing.
"""
