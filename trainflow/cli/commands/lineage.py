"""`trainflow audit --diet`: every partition that the weights of a checkpoint ever learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.render.output import print_json, print_rows, text
from trainflow.errors import InputError
from trainflow.pluralize import counted

if TYPE_CHECKING:
    from trainflow.checkpoints.audit.lineage import Meal
    from trainflow.checkpoints.ledger.entries import Checkpoint, LedgerEntry
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.workspace.pipelines import Chain

_COLUMNS = {
    "start": "PARTITION",
    "end": "TO",
    "rows": "ROWS",
    "chain": "CHAIN",
    "sequence": "CHECKPOINT",
    "run_id": "RUN",
    "how": "",
    "short": "FINGERPRINT",
}


def show_diet(chain: Chain, which: str, *, json: bool) -> int:
    """Print it. Raises InputError, LedgerCorrupt, StoreFailure."""
    from trainflow.checkpoints.audit.lineage import diet
    from trainflow.checkpoints.ledger.entries import CheckpointRef

    ledger = chain.ledger()
    checkpoint = find_ever(ledger, which, list(ledger.entries()))
    found = diet(CheckpointRef(ledger.chain, checkpoint.id), lambda key: list(chain.ledger(key).entries()))
    if json:
        print_json(
            {
                "chain": str(ledger.chain),
                "id": checkpoint.id,
                "sequence": checkpoint.sequence,
                "watermark": checkpoint.watermark,
                "began_with": found.began_with or None,
                "rows": found.rows,
                "partitions": [as_json(meal) for meal in found.meals],
            }
        )
        return 0
    rows = [
        {
            **as_json(meal),
            "how": "filled hole" if meal.filled else "",
            "short": meal.fingerprint.removeprefix("sha256:")[:12],
        }
        for meal in found.meals
    ]
    typer.echo(f"{ledger.chain} checkpoint {checkpoint.sequence}, trained up to {text(checkpoint.watermark)}")
    if found.began_with:
        typer.echo(f"began with {found.began_with}: what that was trained on is not known here")
    print_rows(rows, _COLUMNS, as_json=False, empty="nothing")
    rows_ = f", {counted(found.rows, 'row')}" if found.rows is not None else ""
    typer.echo(f"{counted(len(found.meals), 'partition')}{rows_}")
    return 0


def find_ever(ledger: Ledger, which: str, entries: list[LedgerEntry]) -> Checkpoint:
    """The checkpoint of a number, an id, or the head; be it pruned or rewound. Raises InputError."""
    from trainflow.checkpoints.ledger.entries import Checkpoint as Kind

    if which == "head":
        return ledger.checkpoint()
    for entry in entries:
        if isinstance(entry, Kind) and (entry.id == which or (which.isdecimal() and entry.sequence == int(which))):
            return entry
    raise InputError(
        f"chain {ledger.chain} in {ledger.store.url} never had a checkpoint {which}: 'trainflow checkpoints ledger' "
        "shows all that it had"
    )


def as_json(meal: Meal) -> dict[str, Any]:
    """The stable keys of one partition of a diet."""
    return {
        "start": meal.start,
        "end": meal.end,
        "fingerprint": meal.fingerprint,
        "rows": meal.rows,
        "chain": str(meal.chain),
        "checkpoint_id": meal.checkpoint_id,
        "sequence": meal.sequence,
        "run_id": meal.run_id,
        "at": meal.at,
        "filled": meal.filled,
    }
