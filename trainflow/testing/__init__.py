"""The public test kit: what an executor or a store of others is tested with.

Reading order: `executor_contract`, `executor_engine_contract` (also for executors that have a host for each rank) and
`store_contract` (conformance suites: subclass, give a fixture, run; the pipeline that executors run is
`contract_tasks`, the engine that the second needs `contract_engine`), `chains` and `faulty_store` (ledgers that are
made quickly, stores that fail at the n-th call), `processes` (real processes, to be waited for and killed, and ports of
servers that come and go), `kubernetes_api` and `ray_jobs_api` (clusters on this machine), `kubernetes_contract` (the
command that runs the contract in a real one).

Nothing of the package imports it. A change breaks this when a check of a contract names how one implementation does it.
"""
