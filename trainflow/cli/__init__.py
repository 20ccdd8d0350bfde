"""The command line. One module a noun; each command is a thin skin over the part that does the work.

`main` registers commands and turns errors into messages and exit codes: 0 done, 1 the chain or task failed (or an audit
found something), 2 wrong input, 130 interrupted. `opened` finds the project and opens its database, `output` prints
tables for people and JSON (stable keys) for programs. What a person names is looked up in `pipelines` (chains) and
`names` (DAGs, runs, tasks); what is said of them is in `run_facts` and `task_facts`; `parsed` has a pipeline file read
by another process.

Nothing heavy is imported at module level: `trainflow --help` must answer at once.
"""
