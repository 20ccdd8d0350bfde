"""Entry of the process in which a command has a pipeline file read: `ParseFile` on stdin, `ParsedFile` on stdout.

`python -m trainflow.execution.parse_main PARENT SECONDS`: it dies with the process PARENT, and when it has used
SECONDS of processor time. Memory is not limited: by address space it would refuse what maps files and devices.

What the file prints while it is imported goes to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from trainflow.authoring.dag import DAG
from trainflow.execution.dag_files import LoadedFile
from trainflow.execution.parse import parse
from trainflow.messages.parsed_file import ChainAccess, ParsedFile
from trainflow.messages.workload import ParseFile
from trainflow.observability.process_lifetime import die_with_parent, limit_processor_time, watch_parent


def main() -> None:
    """Read the file that the command asks for, answer, end."""
    answer(parse_file)


def answer(handle: Callable[[ParseFile], Any]) -> None:
    """Answer the one request on stdin with what `handle` makes of it, and end. Threads that the file started, and what
    does not answer, are not waited for."""
    parent = int(sys.argv[1])
    if not die_with_parent(parent):
        watch_parent(parent)
    limit_processor_time(float(sys.argv[2]))
    output = os.dup(1)
    os.dup2(2, 1)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ParseFile)
    data = msgspec.json.encode(handle(request), enc_hook=repr)
    with os.fdopen(output, "wb") as out:
        out.write(data)
    sys.stderr.flush()
    os._exit(0)


def parse_file(request: ParseFile) -> ParsedFile:
    """The documents of a file's DAGs with the way to their chains; never raises for what is in the file."""
    loaded: list[LoadedFile] = []
    result = parse(request, on_loaded=loaded.append)
    if result.problem is not None:
        return ParsedFile(result)
    dags = [dag for file in loaded for dag in file.dags.values()]
    return ParsedFile(result, {dag.dag_id: access_of(dag) for dag in dags})


def access_of(dag: DAG) -> ChainAccess:
    """What the operators of a chain say that its document leaves out."""
    by_role = {task.role: task for task in dag.tasks if task.role is not None}
    checkpoint, commit = by_role.get("checkpoint"), by_role.get("commit")
    return ChainAccess(
        store_options=_options(checkpoint),
        sample_options=_options(getattr(by_role.get("samples"), "samples", None)),
        adopt_options=_options(getattr(checkpoint, "adopt", None)),
        retention=list(getattr(commit, "retention", ())),
        dependents=list(getattr(commit, "dependents", ())),
    )


def _options(owner: Any) -> dict[str, Any]:
    return dict(getattr(owner, "storage_options", None) or {})


if __name__ == "__main__":
    main()
