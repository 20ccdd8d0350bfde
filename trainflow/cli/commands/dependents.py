"""`trainflow checkpoints followers`: which stages of other pipelines start from checkpoints of a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE
from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows
from trainflow.errors import InputError
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from trainflow.checkpoints.chain import ChainKey


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("followers")(followers)


def followers(
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

    JSON: {followers: [{chain, at, once, held (checkpoints of this chain that are kept for it)}]}.
    """
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.checkpoints.stages.dependents import still_needed
    from trainflow.checkpoints.stages.dependents_registry import followers_in
    from trainflow.checkpoints.stages.dependents_registry import forget as let_go

    ledger = open_pipeline(pipeline).one_chain(stage, branch).ledger()
    if forget is not None and not let_go(ledger.store, ledger.chain, _named(forget)):
        raise InputError(f"{forget} does not follow {ledger.chain}: 'trainflow checkpoints followers' lists who does")
    kept = ledger.kept()
    rows = [
        {
            "chain": str(each.chain),
            "at": each.at,
            "once": each.once,
            "held": len(still_needed(each, Ledger(ledger.store, each.chain).state(), kept)),
        }
        for each in followers_in(ledger.store, ledger.chain)
    ]
    if as_json:
        print_json({"followers": rows})
        return 0
    columns = {"chain": "CHAIN", "at": "STARTS FROM", "once": "ONCE", "held": "CHECKPOINTS KEPT FOR IT"}
    print_rows(rows, columns, as_json=False, empty="no stage of another pipeline follows")
    return 0


def _named(written: str) -> ChainKey:
    from trainflow.checkpoints.chain import ChainKey

    try:
        return ChainKey(*written.split("/"))
    except TypeError:
        raise InputError(f"--forget {written}: write PIPELINE/STAGE/BRANCH") from None
