"""What is wrong with how stages start from each other, although each of them could be. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trainflow.pipeline_spec.model import PipelineSpec, StageSpec
from trainflow.pipeline_spec.problems import Location, suggest
from trainflow.pipeline_spec.samples_section import samples_of
from trainflow.pipeline_spec.sections import InitFromSection
from trainflow.samples.grid import nests


def upstream_of(spec: PipelineSpec, name: str) -> str | None:
    """The stage of this file that a stage starts from; None: none, or a chain of another file."""
    init = spec.stages[name].init_from
    if init is None or init.stage is None:
        return None
    foreign = init.pipeline not in (None, spec.pipeline) or init.branch not in (None, spec.branch)
    return None if foreign or init.stage not in spec.stages else init.stage


def is_feedback(spec: PipelineSpec, name: str) -> bool:
    """Whether a stage starts from one that comes after it: day D from that one's day D-1."""
    upstream, init = upstream_of(spec, name), spec.stages[name].init_from
    if upstream is None or init is None or init.once or not _comes_later(spec, upstream, name):
        return False
    return init.at in (None, "same_watermark") or name in _upstreams(spec, upstream)


def cycle_of(spec: PipelineSpec, name: str) -> list[str]:
    """The stages of the circle that a stage is in, from it on, each before the one that starts from it; empty: it is in
    none."""
    upstreams = _upstreams(spec, name)
    return [name, *reversed(upstreams[: upstreams.index(name)])] if name in upstreams else []


def follows_watermark(spec: PipelineSpec, name: str) -> bool:
    """Whether a stage trains on what its upstream has trained on, up to there and no further."""
    init = spec.stages[name].init_from
    follows = init is not None and not init.once and init.at in (None, "same_watermark")
    return follows and upstream_of(spec, name) is not None and not is_feedback(spec, name)


def through(spec: PipelineSpec, name: str) -> list[str]:
    """Stages, for one that begins a circle: those behind its upstream whose skips the upstream cannot make up for."""
    found, upstream = [], upstream_of(spec, name)
    while upstream is not None and follows_watermark(spec, upstream):
        upstream = upstream_of(spec, upstream)
        if upstream is None or upstream == name:
            break
        found.append(upstream)
    return found


def passes_to(spec: PipelineSpec, name: str) -> str | None:
    """The next stage, for one that keeps step in a circle: the one that goes on when this one has stepped over what the
    upstream let it train on, since those in between have nothing to do then; None: it is in no circle."""
    if not follows_watermark(spec, name):
        return None
    return next((each for each in cycle_of(spec, name)[1:] if not follows_watermark(spec, each)), None)


def upstream_problems(spec: PipelineSpec) -> Iterator[tuple[Location, str]]:
    """Each thing that is wrong, with its location."""
    for name, stage in spec.stages.items():
        init = stage.init_from
        if init is None:
            continue
        at: Location = ("stages", name, "init_from")
        if init.checkpoint is not None:
            if init.checkpoint in spec.stages:
                yield at, f"{init.checkpoint!r} names a pipeline: for the stage write {{stage: {init.checkpoint}}}"
            continue
        problem = _unknown(spec, name, init) or _impossible(spec, name, stage, init)
        if problem:
            yield (*at, "stage") if init.stage else at, problem
        elif is_feedback(spec, name):
            yield from _wrong_rounds(spec, name)


def _unknown(spec: PipelineSpec, name: str, init: InitFromSection) -> str | None:
    if init.pipeline not in (None, spec.pipeline) or init.branch not in (None, spec.branch):
        return None
    if init.stage == name:
        return "a stage cannot start from itself: without init_from, each run starts from the one before it"
    if init.stage not in spec.stages:
        return f"there is no stage {init.stage!r}{suggest(init.stage, spec.stages)}; stages: {', '.join(spec.stages)}"
    return None


def _impossible(spec: PipelineSpec, name: str, stage: StageSpec, init: InitFromSection) -> str | None:
    upstream = upstream_of(spec, name)
    if upstream is None:
        if stage.mode == "latest" and not init.once and init.at in (None, "same_watermark"):
            return "with mode: latest nothing tells this stage what another pipeline commits: at is latest, or once"
        return None
    circle = name in _upstreams(spec, upstream)
    if init.once:
        return _never_begun(spec, upstream, circle)
    if circle and init.at == "promoted" and _comes_later(spec, upstream, name):
        return (
            f"stage {upstream!r} starts from this one again, so neither could begin: before there is anything to "
            "promote, a circle begins with at: same_watermark or latest"
        )
    return None


def _wrong_rounds(spec: PipelineSpec, first: str) -> Iterator[tuple[Location, str]]:
    """Why a circle would come to a halt: the stage that begins it goes on once the others have passed its watermark,
    and they never would."""
    others = _upstreams(spec, first)
    for name in others[: others.index(first)] if first in others else ():
        init, at = spec.stages[name].init_from, ("stages", name)
        if init is None or init.at not in (None, "same_watermark"):
            continue
        for key, problem in _wrong_samples(spec, first, name):
            yield (*at, "samples", key), problem


def _wrong_samples(spec: PipelineSpec, first: str, name: str) -> Iterator[tuple[str, str]]:
    begins, own = (samples_of(spec.stages[each].samples) for each in (first, name))
    waits = f"stage {first!r}, which starts from it one round later, would wait for ever"
    if own.start > begins.start:
        yield "start", f"after the start of stage {first!r}: nothing here would be trained up to there, and {waits}"
    elif not nests(begins, own):
        yield "length", f"a partition of stage {first!r} may end inside one of stage {name!r}, and {waits}"


def _never_begun(spec: PipelineSpec, upstream: str, circle: bool) -> str | None:
    """Why a stage that begins when its upstream is caught up never would."""
    if circle:
        return f"stage {upstream!r} starts from this one again: 'once' begins when its upstream is caught up, so never"
    found = spec.stages[upstream]
    if found.mode == "latest" and found.samples.end is None:
        return (
            f"never begins: 'once' waits until stage {upstream!r} is caught up, and that has mode: latest and no 'end'"
        )
    if found.init_from is not None and not found.init_from.once and found.init_from.checkpoint is None:
        return (
            f"never begins: 'once' waits until stage {upstream!r} is caught up, and that follows its upstream "
            "without end"
        )
    return None


def _comes_later(spec: PipelineSpec, upstream: str, name: str) -> bool:
    order = list(spec.stages)
    return order.index(upstream) > order.index(name)


def _upstreams(spec: PipelineSpec, name: str) -> list[str]:
    """The upstream of a stage, the upstream of that, and so on, until one comes again."""
    found: list[str] = []
    upstream = upstream_of(spec, name)
    while upstream is not None and upstream not in found:
        found.append(upstream)
        upstream = upstream_of(spec, upstream)
    return found
