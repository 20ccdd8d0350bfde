"""What can be asked about DAGs, runs, tasks and pools: what the metadata database knows.

`dags`, `runs`, `tasks`, `pools`, and `explain_task` (why one task does not run).
"""
