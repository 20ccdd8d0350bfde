"""The public test kit: what trainflow tests itself with, and what an executor, store or operator of others needs.

Reading order: `executor_contract` and `store_contract` (conformance suites: subclass, give a fixture, run; the pipeline
that executors run is `contract_tasks`), `chains` and `faulty_store` (ledgers that are made quickly, stores that fail at
the n-th call), `control_plane`, `embedded` and `command_line` (scheduler, whole engine or commands in the test's
process), `local_databases`, `local_object_stores` and `webhook` (servers), `tiny_project`, `live_project` and
`processes` (real processes, to be killed), `storm` (kills, freezes and full disks over real engines, for as long as
asked).

Nothing of the package imports it. A change breaks this when a check of a contract names how one implementation does it.
"""
