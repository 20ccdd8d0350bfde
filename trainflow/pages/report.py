"""A pipeline's chains in one file: to mail, or to keep with a model. It fetches nothing, and has no script."""

from __future__ import annotations

import base64
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from importlib import resources
from typing import Any, NamedTuple

from markupsafe import Markup

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import HoleRecord
from trainflow.insight.chains.history import ChainEvent, ChainHistory, told
from trainflow.insight.chains.lineage import lineage
from trainflow.insight.chains.partition_states import PartitionRanges, PartitionStatus, partition_ranges
from trainflow.pages import calendar as drawing
from trainflow.pages.checkpoint import charts, gates_of
from trainflow.pages.rendering import day, render
from trainflow.samples.partitions import shift
from trainflow.samples.spec import Samples
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain

#: columns of the picture of a calendar
_COLUMNS = 1000
#: rows of the tables at the most
_MOST_ROWS = 500
#: red, green, blue of each state, as `pages.css` has them on light ground
_COLORS = {
    PartitionStatus.INHERITED: 0xB9C3D6,
    PartitionStatus.ABSENT: 0xE3E7EE,
    PartitionStatus.ARRIVING: 0xB7DCF5,
    PartitionStatus.READY: 0x4F9FE0,
    PartitionStatus.REFUSED: 0xB3261E,
    PartitionStatus.TRAINING: 0x8D5BD6,
    PartitionStatus.TRAINED: 0x3F9D67,
    PartitionStatus.HOLE: 0x20242C,
    PartitionStatus.LATE: 0xF0A020,
    PartitionStatus.REPUBLISHED: 0xD9569D,
    PartitionStatus.LEFT_OUT: 0x7A6A55,
    PartitionStatus.UNDONE: 0xC9B458,
}


class Picture(NamedTuple):
    """The calendar of a chain: each partition is a pixel, from top to bottom and then to the right. `ticks`: share of
    the width, and what is written there."""

    url: str
    ticks: list[tuple[float, str]]


class ChainReport(NamedTuple):
    """One chain, as the file shows it."""

    key: ChainKey
    state: Any
    history: ChainHistory
    events: list[ChainEvent]
    picture: Picture | None
    counts: dict[PartitionStatus, int]
    charts: list[Any]
    holes: list[HoleRecord]
    learnt: Any
    learnt_by_chain: list[tuple[str, int]]


def report(file: OpenedPipeline, stage: str | None, branch: str | None, now: datetime) -> str:
    """The file of the chains that are meant. Raises InputError, LedgerCorrupt, StoreFailure."""
    found = [_chain(each, now) for each in file.chosen(stage, branch)]
    style = resources.files("trainflow.pages").joinpath("static", "pages.css").read_text()
    values = {
        "title": f"{file.name}: report",
        "name": file.name,
        "now": now,
        "chains": found,
        "meaning": drawing.MEANING,
        "most": _MOST_ROWS,
        "style": Markup(style),
    }
    return render("report.html", values)


def _chain(chain: PipelineChain, now: datetime) -> ChainReport:
    ledger, samples = chain.ledger(), chain.samples
    state, history = ledger.state(), ChainHistory()
    history.read(ledger)
    ranges = partition_ranges(ledger, samples, now) if samples is not None else None
    learnt = lineage(chain, state.head.id) if state.head is not None else None
    return ChainReport(
        key=chain.key,
        state=state,
        history=history,
        events=told(history.events),
        picture=_picture(ranges, samples) if ranges is not None and samples is not None and ranges.count else None,
        counts=drawing.counts(ranges) if ranges is not None else {},
        charts=charts({chain.key.branch: history}, gates_of(chain.document.gates)),
        holes=[*(each.hole for each in state.holes), *state.skips],
        learnt=learnt,
        learnt_by_chain=Counter(each.chain for each in learnt.partitions).most_common() if learnt else [],
    )


def _picture(found: PartitionRanges, samples: Samples) -> Picture:
    deep = -(-found.count // _COLUMNS)
    wide = -(-found.count // deep)
    cells = bytearray([drawing.STATES.index(PartitionStatus.ABSENT)]) * (wide * deep)
    for first, length, state in found.ranges:
        cells[first : first + length] = bytes([drawing.STATES.index(PartitionStatus(state))]) * length
    lines = (bytes(cells[line::deep]) for line in range(deep))
    ticks = [(share, day(shift(samples, found.first, round(found.count * share)))) for share in (0, 0.25, 0.5, 0.75, 1)]
    data = base64.b64encode(png(wide, lines, [_COLORS[state] for state in drawing.STATES])).decode()
    return Picture(f"data:image/png;base64,{data}", ticks)


def png(wide: int, lines: Iterator[bytes], palette: list[int]) -> bytes:
    """A picture of one byte a pixel, as PNG has it (W3C, Portable Network Graphics)."""
    raw = [b"\0" + line for line in lines]
    header = struct.pack(">IIBBBBB", wide, len(raw), 8, 3, 0, 0, 0)
    colors = b"".join(color.to_bytes(3, "big") for color in palette)
    parts = ((b"IHDR", header), (b"PLTE", colors), (b"IDAT", zlib.compress(b"".join(raw), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_part(name, data) for name, data in parts)


def _part(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
