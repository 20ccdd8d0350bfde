"""What requests and chains cost, for people."""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING

import typer

from trainflow.cli.render.output import print_facts
from trainflow.humanize import bytes_text, counted

if TYPE_CHECKING:
    from trainflow.insight.cost import ChainCost, Cost


def print_cost(cost: Cost) -> None:
    """What a command has asked of stores."""
    if not cost.requests:
        typer.echo("cost        nothing: no store in the network was asked")
        return
    kinds = f"{cost.writes} to write or list, {cost.reads} to read, {cost.deletes} to delete"
    print_facts(
        {
            "cost": f"{counted(cost.requests, 'request')}: {kinds}",
            "read": bytes_text(cost.bytes_received),
            "written": bytes_text(cost.bytes_sent) if cost.bytes_sent else "",
            "waited": f"{cost.seconds:.2f} s for answers, some of them at the same time",
            "refused": str(cost.errors) if cost.errors else "",
            "price": _priced(cost),
        }
    )


def _priced(cost: Cost) -> str:
    if cost.price is None:
        return f"not known of {', '.join(cost.unpriced)}: set [prices] in configs/trainflow.toml"
    return f"{money(cost.price, cost.currency)} ({cost.price_source})"


def print_chain_cost(cost: ChainCost) -> None:
    """What a chain keeps and asks."""
    kept = f"{counted(cost.kept_checkpoints, 'checkpoint')}, {bytes_text(cost.kept_bytes)}"
    if cost.kept_price_a_month:
        kept += f", {money(cost.kept_price_a_month, cost.currency)} a month"
    garbage = "" if not cost.garbage_files else (
        f"{counted(cost.garbage_files, 'file')}, {bytes_text(cost.garbage_bytes or 0)}: "
        f"'trainflow checkpoints sweep {cost.chain.arguments}' frees it"
    )  # fmt: skip
    typer.echo(f"\ncost of {cost.chain}")
    print_facts({"  kept": kept, "  garbage": garbage, "  a run": _of_a_run(cost), "  a month": _of_a_month(cost)})


def _of_a_run(cost: ChainCost) -> str:
    run = cost.run
    if run is None:
        return ""
    price = "" if run.price is None else f", {money(run.price, cost.currency)}"
    amount = bytes_text(round(run.bytes_sent + run.bytes_received))
    kinds = f"{run.writes:.3g} to write or list, {run.reads:.3g} to read"
    return f"{run.requests:.3g} requests ({kinds}), {amount}{price}; mean of the last {run.runs}"


def _of_a_month(cost: ChainCost) -> str:
    if cost.price_a_month is None or not cost.runs_a_day or not cost.price_a_month:
        return ""
    rate = f"a run for each partition, {cost.runs_a_day:.3g} a day, and what is kept"
    return f"{money(cost.price_a_month, cost.currency)}: {rate} ({cost.price_source})"


def money(amount: float, currency: str | None) -> str:
    """Two digits after the point, or the first two that are not zero."""
    digits = 2 if amount == 0 else max(2, 1 - floor(log10(amount)))
    text = f"{amount:.{digits}f}"
    return f"{text} {currency}" if currency else text
