"""A branch of a pipeline: the same file, read with another branch's name and what the fork was told to do otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainflow.errors import InputError
from trainflow.workspace.pipelines import PipelineFile, read_pipeline

if TYPE_CHECKING:
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import Fork
    from trainflow.workspace.workspace import Workspace


def overrides_of_branch(workspace: Workspace, path: Path, branch: str, given: dict[str, str]) -> dict[str, str]:
    """What a file is to be read with to train a branch: its fork's overrides, then `given`. Raises InputError."""
    from trainflow.checkpoints.ledger.entries import Fork

    file = read_pipeline(workspace, path, {**given, "branch": branch})
    chains = [chain for chain in file.some_chains() if chain.key.branch == branch]
    states = [chain.ledger().state() for chain in chains]
    if not any(state.sequence for state in states):
        if any(chain.document.branch == branch for chain in read_pipeline(workspace, path, given).chains):
            return {**given, "branch": branch}  # the one that the file itself trains needs no fork
        raise InputError(
            f"{file.name} has no branch {branch!r} yet: begin it with 'trainflow checkpoints fork {path.stem} "
            f"--branch {branch}'"
        )
    starts = [state.start for state in states if isinstance(state.start, Fork)]
    without = [chain.key.stage for chain, state in zip(chains, states, strict=True) if not state.sequence]
    _check_complete(without, starts, file, path, branch)
    forked: dict[str, str] = {}
    for start in starts:
        forked |= start.overrides
    return {**forked, **given, "branch": branch}


def _check_complete(without: list[str], starts: list[Fork], file: PipelineFile, path: Path, branch: str) -> None:
    """A stage without a ledger is meant to begin with nothing. Raises InputError."""
    planned = {each.stage: each.checkpoint_id for start in starts for each in start.stages}
    missing = [stage for stage in without if stage not in planned or planned[stage] is not None]
    if missing:
        cut_short = "give the command that forked it again" if planned else "fork it as well"
        raise InputError(
            f"branch {branch!r} of {file.name} lacks {', '.join(missing)}, which would begin with nothing: "
            f"{cut_short}, 'trainflow checkpoints fork {path.stem} --branch {branch}'"
        )


def dags_of(file: PipelineFile, key: ChainKey) -> list[str]:
    """Ids of the DAGs of the file that train a chain, be it of a branch."""
    found = [chain.dag_id for chain in file.chains if chain.key == key]
    if found or all(chain.key.pipeline != key.pipeline for chain in file.chains):
        return found
    branch = read_pipeline(file.workspace, file.path, {"branch": key.branch})
    return [chain.dag_id for chain in branch.chains if chain.key == key]
