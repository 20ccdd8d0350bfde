"""Executors: hand a workload to where it runs, say how its process ended.

Reading order: `executor` (the contract), `reactor` and `framed_socket` (how the control plane waits and talks),
`execution_socket` (the socket on which attempts of this host reach the execution API), `outcome_spool` (what they said
while there was none), `spawn`, `forkserver_client`, `pid_watch`, `process_reaper`, `attempt_process`, `oom_kills` (who
was killed for want of it), `crash_policy` and `local` (the local executor).

Slots in use are counted from the database, never here. Every report carries attempt and deferral number.

A change breaks this when an executor queues what it was handed in a second queue of its own, or when it believes an
exit code where the attempt has said nothing.
"""
