"""A project opened: its settings, its metadata database, its pipeline files, the chains they train and their stores.

Whatever a person does (`trainflow.actions`) or asks (`trainflow.insight`) begins with a `Workspace`, which a command
opens for as long as it runs and an API server once for as long as it lives.

Reading order: `workspace` (find a project, open its database, ask what has not ended), `locate` (which file is meant),
`pipelines` (what a pipeline's name means: a file, its DAGs, the chains these train), `pipeline_file` (have a file read
by another process, or see what can be said without), `branches` (the same file, for a branch), `names` (which DAG, run,
task is meant), `store_check`.

Invariant: user code is read in another process, and only where a question cannot be answered without it.

A change breaks this when opening a workspace reads a pipeline, a store or a server.
"""
