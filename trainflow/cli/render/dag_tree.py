"""Draw the tasks of a DAG as a tree."""

from __future__ import annotations

from typing import Any

from trainflow.cli.render.output import duration
from trainflow.pluralize import counted


def tree(tasks: list[dict[str, Any]]) -> list[str]:
    """One line a task, in the order of the DAG, each under the last of those it waits for; others are named
    where they do not follow from that."""
    order = {task["task_id"]: number for number, task in enumerate(tasks)}
    children: dict[str | None, list[dict[str, Any]]] = {}
    for task in tasks:
        under = max(task["upstream"], key=lambda name: order[name], default=None)
        children.setdefault(under, []).append(task)
    ancestors = _ancestors(tasks)
    lines: list[str] = []
    # (task, its parent, indent, whether it is the last below its parent): what is still to be drawn, next one last
    pending: list[tuple[dict[str, Any], str | None, str, bool]] = []

    def put_below(parent: str | None, indent: str) -> None:
        below = children.get(parent, [])
        pending.extend((task, parent, indent, task is below[-1]) for task in reversed(below))

    put_below(None, "")
    while pending:
        task, parent, indent, last = pending.pop()
        branch = "" if parent is None else "└─ " if last else "├─ "
        lines.append(f"{indent}{branch}{_task_line(task, parent, ancestors[parent])}")
        put_below(task["task_id"], indent + ("" if parent is None else "   " if last else "│  "))
    return lines


def _ancestors(tasks: list[dict[str, Any]]) -> dict[str | None, set[str]]:
    """Task → all it waits for, directly or not."""
    found: dict[str | None, set[str]] = {None: set()}
    for task in tasks:
        found[task["task_id"]] = set(task["upstream"]).union(*(found[name] for name in task["upstream"]))
    return found


def _task_line(task: dict[str, Any], parent: str | None, implied: set[str]) -> str:
    others = [name for name in task["upstream"] if name != parent and name not in implied]
    remarks = [task["operator"]]
    if task.get("trigger_rule", "all_success") != "all_success":
        remarks.append(f"trigger rule {task['trigger_rule']}")
    if others:
        remarks.append(f"also after {', '.join(others)}")
    if retries := task.get("retry", {}).get("retries"):
        remarks.append(counted(retries, "retry"))
    if timeout := task.get("execution_timeout_seconds"):
        remarks.append(f"at most {duration(timeout)}")
    if task.get("pool", "default_pool") != "default_pool":
        remarks.append(f"pool {task['pool']}")
    return f"{task['task_id']}  ({', '.join(remarks)})"
