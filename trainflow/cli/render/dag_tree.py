"""Draw the tasks of a DAG as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainflow.cli.render.output import duration
from trainflow.pluralize import counted

if TYPE_CHECKING:
    from rich.tree import Tree

#: a line is as long as it is: neither folded nor cut
_WIDTH = 1_000_000


def print_tree(tasks: list[dict[str, Any]]) -> None:
    """Print one line a task, in the order of the DAG, each under the last of those it waits for; others are named where
    they do not follow from that."""
    from rich.console import Console

    Console(width=_WIDTH, color_system=None, highlight=False, markup=False, emoji=False).print(_tree(tasks))


def _tree(tasks: list[dict[str, Any]]) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    root = Tree("", hide_root=True)
    drawn = {"": root}
    order = {task["task_id"]: number for number, task in enumerate(tasks)}
    ancestors = _ancestors(tasks)
    for task in tasks:
        parent = max(task["upstream"], key=lambda name: order[name], default="")
        line = Text(_task_line(task, parent, ancestors[parent]), no_wrap=True)
        drawn[task["task_id"]] = drawn[parent].add(line)
    return root


def _ancestors(tasks: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Task → all it waits for, directly or not; nothing for the root of the tree, `""`."""
    found: dict[str, set[str]] = {"": set()}
    for task in tasks:
        found[task["task_id"]] = set(task["upstream"]).union(*(found[name] for name in task["upstream"]))
    return found


def _task_line(task: dict[str, Any], parent: str, implied: set[str]) -> str:
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
