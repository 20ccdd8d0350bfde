"""`trainflow audit --lineage`: every partition that the weights of a checkpoint ever learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from trainflow.cli.render.output import print_json, print_rows, text
from trainflow.pluralize import counted

if TYPE_CHECKING:
    from trainflow.workspace.pipelines import PipelineChain

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


def show_lineage(chain: PipelineChain, which: str, *, json: bool) -> int:
    """Print it. Raises InputError, LedgerCorrupt, StoreFailure."""
    import msgspec

    from trainflow.insight.chains.lineage import lineage

    found = lineage(chain, which)
    if json:
        print_json(found)
        return 0
    rows = [
        {
            **msgspec.structs.asdict(each),
            "how": "filled hole" if each.filled else "",
            "short": each.fingerprint.removeprefix("sha256:")[:12],
        }
        for each in found.partitions
    ]
    typer.echo(f"{found.chain} checkpoint {found.sequence}, trained up to {text(found.watermark)}")
    if found.began_with:
        typer.echo(f"began with {found.began_with}: what that was trained on is not known here")
    print_rows(rows, _COLUMNS, as_json=False, empty="nothing")
    rows_ = f", {counted(found.rows, 'row')}" if found.rows is not None else ""
    typer.echo(f"{counted(len(found.partitions), 'partition')}{rows_}")
    return 0
