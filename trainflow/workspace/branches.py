"""A branch of a pipeline: the same file, read with another branch's name and what the fork was told to do otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trainflow.errors import InputError, PipelineFileError
from trainflow.workspace.pipeline_file import dags_named_in
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain, read_pipeline

if TYPE_CHECKING:
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import Fork
    from trainflow.workspace.workspace import Workspace


def overrides_of_branch(workspace: Workspace, path: Path, branch: str, given: dict[str, str]) -> dict[str, str]:
    """What a file is to be read with to train a branch: its fork's overrides, then `given`. Raises InputError."""
    from trainflow.checkpoints.ledger.entries import Fork

    file = _as_it_stands(workspace, path, branch, given) or read_pipeline(workspace, path, {**given, "branch": branch})
    chains = [chain for chain in file.some_chains() if chain.key.branch == branch]
    states = [chain.ledger().state() for chain in chains]
    if not any(state.sequence for state in states):
        own = _as_it_stands(workspace, path, None, given) or read_pipeline(workspace, path, given)
        if any(chain.document.branch == branch for chain in own.chains):
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


def as_branch(file: OpenedPipeline, branch: str | None) -> OpenedPipeline:
    """The file read anew as it trains a branch of its chains, where it was not read for that (None: whichever it
    trains): with what that was forked with, and by the names of its own DAGs. Raises InputError."""
    if branch is None or any(chain.document.branch == branch for chain in file.chains):
        return file
    overrides = overrides_of_branch(file.workspace, file.path, branch, dict(file.overrides))
    read, stages = read_pipeline(file.workspace, file.path, overrides), {each.key.stage for each in file.chains}
    return read._replace(chains=[each for each in read.chains if each.key.stage in stages])  # of a DAG that was named


#: overrides of these say which chains there are, and where they lie
_NAMING = ("pipeline", "stage", "stages", "branch", "store")


def _as_it_stands(workspace: Workspace, path: Path, branch: str | None, given: dict[str, str]) -> OpenedPipeline | None:
    """The chains of a YAML file by the names that stand in it (`branch`: of this one), without having it read: the
    engine does that, once it is known with what. None where these names do not say all."""
    if any(name.partition(".")[0] in _NAMING for name in given):
        return None
    try:
        found = dags_named_in(path)
    except PipelineFileError:
        return None
    chains = [
        PipelineChain(
            each.dag_id, msgspec.structs.replace(each.chain, branch=branch or each.chain.branch), each.access, workspace
        )
        for each in found
        if each.chain is not None and each.access is not None
    ]
    names = [name for chain in chains for name in (chain.document.pipeline, chain.document.stage, chain.document.store)]
    if not chains or any("{" in name for name in names):
        return None
    return OpenedPipeline(path, workspace, [], chains)


def _check_complete(without: list[str], starts: list[Fork], file: OpenedPipeline, path: Path, branch: str) -> None:
    """A stage without a ledger is meant to begin with nothing. Raises InputError."""
    planned = {each.stage: each.checkpoint_id for start in starts for each in start.stages}
    missing = [stage for stage in without if stage not in planned or planned[stage] is not None]
    if missing:
        cut_short = "give the command that forked it again" if planned else "fork it as well"
        raise InputError(
            f"branch {branch!r} of {file.name} lacks {', '.join(missing)}, which would begin with nothing: "
            f"{cut_short}, 'trainflow checkpoints fork {path.stem} --branch {branch}'"
        )


def dags_of(file: OpenedPipeline, key: ChainKey) -> list[str]:
    """Ids of the DAGs of the file that train a chain, be it of a branch."""
    found = [chain.dag_id for chain in file.chains if chain.key == key]
    if found or all(chain.key.pipeline != key.pipeline for chain in file.chains):
        return found
    branch = read_pipeline(file.workspace, file.path, {"branch": key.branch})
    return [chain.dag_id for chain in branch.chains if chain.key == key]
