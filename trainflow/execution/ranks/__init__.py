"""Ranks of one attempt on several hosts: how they find each other before it begins, and what runs one of them.

Each host is started with the same workload, and told which rank it is. The first rank listens, and says where at the
API server; the others ask there, with the secret that claims the attempt, connect, and prove that they know it. When
all are there the first one claims the attempt, and runs it as on one machine: to the control plane it is one process.
The others do what that process says on the connection, and end with it.

Reading order: `rendezvous` (the first rank, and who is at the other end), `agent` (the others), `rank_main` (a rank
that calls a function), `ray_placement` (all of them on the nodes of a Ray cluster). What they say to each other is
`trainflow.operators.training.rank_connection`.

Invariants
- An attempt is claimed when all its ranks are there, and not before: until then nothing is lost when one goes.
- The end of the connection is the end of the rank. Nothing of it outlives the process at its host.
- The claim secret never travels between hosts, and code of users never sees it.

A change breaks this when a rank trains that does not belong to the attempt, or goes on when the first one is gone.
"""
