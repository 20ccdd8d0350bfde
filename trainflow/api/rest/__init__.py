"""The REST API: what people and programs ask of the control plane, and have it do, as JSON.

Where the concept is Airflow's, the paths and shapes are Airflow's. Everything is asked through `trainflow.insight` and
done through `trainflow.actions`, the functions that the command line calls.

Reading order: `endpoints` (what an endpoint is), `problems`, `request_parsing` (what a request holds), `paging`,
`application` (threads), `writes` (once for each key, and noted); the nouns: `airflow_shapes`, `dags`, `dag_runs`,
`task_instances`, `task_changes`, `server`, `chains`, `checkpoints`, `decisions`; `all_endpoints`; `document` and
`examples` (OpenAPI).

Starlette and msgspec, not FastAPI: the values that are asked for are msgspec's already, a model of Pydantic for each
would say them twice, and a server that has loaded both takes 12 MiB more, with which it would not stay below 60.

A change breaks this when an endpoint decides what `insight` or `actions` should, when a parameter is taken and ignored,
when an answer comes that the document does not name, or when what a request says names a file.
"""
