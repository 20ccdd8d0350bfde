"""The names of the logs of attempts, relative to the logs of a home: the same on every host, and in every store."""

from __future__ import annotations


def attempt_log_name(dag_id: str, run_id: str, task_id: str, attempt_id: str) -> str:
    """`DAG/RUN/TASK/ATTEMPT.log`, as far as these can name files. People's own scripts look there."""
    return "/".join([*(_file_name(each) for each in (dag_id, run_id, task_id)), f"{attempt_id}.log"])


def _file_name(identifier: str) -> str:
    return identifier.replace("/", "_").replace(":", "")
