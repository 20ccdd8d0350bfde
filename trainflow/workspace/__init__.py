"""A project opened: its settings, its metadata database, its pipeline files, the chains they train and their stores.

Whatever a person does (`trainflow.actions`) or asks (`trainflow.insight`) begins with a `Workspace`, which a command
opens for as long as it runs and an API server once for as long as it lives.

`workspace` (find a project, open its database), `pipelines` (what a pipeline's name means: a file, its DAGs, the chains
these train), `parse_pipeline` (have a file read by another process), `unread_files` (what can be said without that),
`branches` (the same file, for a branch), `names` (which DAG, run, task is meant), `under_way` (what has not ended).
"""
