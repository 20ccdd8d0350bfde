"""`trainflow checkpoints dependents`: which stages of other pipelines start from checkpoints of a chain."""

from __future__ import annotations

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE
from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows
from trainflow.workspace.pipelines import open_pipeline


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("dependents")(dependents)


def dependents(
    pipeline: str = PIPELINE,
    forget: str | None = typer.Option(
        None, "--forget", metavar="PIPELINE/STAGE/BRANCH", help="Keep nothing more for this one: it is no more."
    ),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """List the stages of other pipelines that build on a chain.

    They start from checkpoints of it: what they have not passed yet is kept.

    A stage is listed from its first run on. One whose pipeline is no more holds checkpoints for ever, unless --forget
    says so; its next run lists it again. What its chain went on from stays.

    JSON: {dependents: [{chain, at, once, held (checkpoints of this chain that are kept for it)}]}.
    """
    import msgspec

    from trainflow.actions.chains.prune import forget_dependent
    from trainflow.insight.chains.dependents import dependents_of

    with open_pipeline(pipeline) as file:
        chain = file.one_chain(stage, branch)
        if forget is not None:
            forget_dependent(chain, forget)
        found = dependents_of(chain)
    if as_json:
        print_json(found)
        return 0
    rows = [msgspec.structs.asdict(each) for each in found.dependents]
    columns = {"chain": "CHAIN", "at": "STARTS FROM", "once": "ONCE", "held": "CHECKPOINTS KEPT FOR IT"}
    print_rows(rows, columns, as_json=False, empty="no stage of another pipeline follows")
    return 0
