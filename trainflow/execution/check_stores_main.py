"""Entry of the process that asks, before a pipeline is begun, whether the places it names can be used.

`python -m trainflow.execution.check_stores_main PARENT SECONDS`: `ParseFile` on stdin, a JSON list of `StoreProblem` on
stdout, one for each place that refuses. It is a process of its own because it imports the drivers of the stores, and
because only here is a pipeline read together with the options that it gives itself. All places are asked at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from trainflow.authoring.dag import DAG
from trainflow.clock import SystemClock
from trainflow.errors import SampleBucketMissing, TrainflowError
from trainflow.execution.dag_files import LoadedFile
from trainflow.execution.parse import parse
from trainflow.execution.parse_main import answer
from trainflow.messages.parsed_file import StoreProblem
from trainflow.messages.workload import ParseFile
from trainflow.operators.chain.storage_options import checkpoint_options, foreign_options, sample_options, store_url
from trainflow.samples.pattern import path_pattern
from trainflow.settings.load import load_settings
from trainflow.settings.model import Settings
from trainflow.settings.project import project_at
from trainflow.storage.drivers import load_driver
from trainflow.storage.errors import CheckpointFailures, Failures, SampleFailures
from trainflow.storage.exclusive_creation import check_kind
from trainflow.storage.reachability import answer_seconds, check_reachable, is_remote

_MOST_PLACES = 16


class Place(NamedTuple):
    """A place that a pipeline names. `key`: what names it, in a pipeline file; empty: the settings do."""

    url: str
    options: dict[str, Any]
    failures: Failures
    stage: str
    key: str
    #: a task that comes before those of the chain may make it
    made_by_a_task: bool = False


def main() -> None:
    """Ask all places, answer, end."""
    answer(problems)


def problems(request: ParseFile) -> list[StoreProblem]:
    """The places that cannot be used, in the order of the file; none where the file itself cannot be read, which is
    told elsewhere."""
    clock = SystemClock()
    began = clock.monotonic() - time.process_time()
    loaded: list[LoadedFile] = []
    if parse(request, on_loaded=loaded.append).problem is not None:
        return []
    settings = load_settings(project_at(Path(request.project_root)))
    patience = settings.engine.store_check_seconds
    if not patience:
        return []
    dags = [dag for file in loaded for dag in file.dags.values()]
    places: dict[str, Place] = {}
    for place in (each for dag in dags for each in places_of(dag, settings)):
        if is_remote(place.url) and "{{" not in place.url:
            places.setdefault(f"{place.url} {place.options}", place)
    for place in places.values():
        with suppress(TrainflowError):  # said of the place itself
            load_driver(place.url, place.options)
    seconds = answer_seconds(patience, clock.monotonic() - began, time.process_time())
    with ThreadPoolExecutor(_MOST_PLACES) as pool:
        return [each for each in pool.map(lambda place: _asked(place, seconds), places.values()) if each is not None]


def places_of(dag: DAG, settings: Settings) -> Iterator[Place]:
    """The places that a DAG names: of its checkpoints, its samples, and of what it adopts."""
    by_role = {task.role: task for task in dag.tasks if task.role is not None}
    checkpoint: Any = by_role.get("checkpoint")
    if checkpoint is not None:
        options = checkpoint_options(checkpoint.storage_options, settings)
        url = store_url(checkpoint.store, settings)
        yield Place(url, options, CheckpointFailures(options), checkpoint.stage, "store" if checkpoint.store else "")
    adopt = getattr(checkpoint, "adopt", None)
    if adopt is not None:
        options = foreign_options(adopt.path, adopt.storage_options, settings)
        yield Place(adopt.pattern().root, options, SampleFailures(options), checkpoint.stage, "adopt.path")
    checker: Any = by_role.get("samples")
    samples = getattr(checker, "samples", None)
    if samples is not None:
        options = sample_options(samples.storage_options, settings)
        stage = "" if checkpoint is None else checkpoint.stage
        prepared = any(dag.get_task(each).role is None for each in _before(dag, checker.task_id))
        yield Place(path_pattern(samples.path).root, options, SampleFailures(options), stage, "samples.path", prepared)


def _before(dag: DAG, task_id: str) -> set[str]:
    """The tasks that a task waits for, directly or by way of others."""
    found: set[str] = set()
    left = [task_id]
    while left:
        new = set(dag.get_task(left.pop()).upstream_task_ids) - found
        found |= new
        left += new
    return found


def _asked(place: Place, seconds: float) -> StoreProblem | None:
    try:
        if isinstance(place.failures, CheckpointFailures):
            check_kind(place.url)
        refused = check_reachable(place.url, place.options, place.failures, seconds)
    except TrainflowError as error:
        refused = error
    if place.made_by_a_task and isinstance(refused, SampleBucketMissing):
        return None
    return None if refused is None else StoreProblem(str(refused), place.stage, place.key)


if __name__ == "__main__":
    main()
