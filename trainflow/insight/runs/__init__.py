"""What can be asked about DAGs, runs, tasks and pools: what the metadata database knows.

Reading order: `dags`, `runs`, `tasks`, `pages` (parts of long lists), `logs`, `pools`, `control_plane` (which parts
live, who did what), `durations` (how long, without the time in which no engine ran). Why one task does not run says
`trainflow.insight.why_task`.

A change breaks this when a question locks a row or reads a pipeline file.
"""
