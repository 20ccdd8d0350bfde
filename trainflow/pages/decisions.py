"""Forms that act: each calls the function that the command line calls. What destroys or decides is shown first, as what
it would do, and done when that is confirmed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from starlette.requests import Request

from trainflow.actions import runs as run_actions
from trainflow.actions.chains.promote import plan_promote, promote
from trainflow.actions.chains.resume import ResumeRequest, plan_resume, resume
from trainflow.actions.chains.rewind import RewindDone, plan_rewind, rewind
from trainflow.actions.dags import set_paused
from trainflow.actions.first_runs import begin_unless_under_way
from trainflow.actions.marking import mark_task, plan_mark
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author
from trainflow.errors import InputError
from trainflow.humanize import agreeing, counted
from trainflow.identifiers import canonical_json, digest
from trainflow.insight.chains.known_chains import read_as_in_force
from trainflow.insight.runs.dags import dag_detail
from trainflow.pages.dag import conf_of
from trainflow.pages.idempotency import FIELD, REPEATED
from trainflow.pages.rendering import segment
from trainflow.pages.site import Answer, Handler, Site
from trainflow.samples.partitions import label
from trainflow.workspace.branches import as_branch
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain

Form = Mapping[str, str]


def form_of(body: bytes) -> dict[str, str]:
    """The fields of a form; of one that is there twice the last."""
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=500)
    return {name: values[-1] for name, values in fields.items()}


class ActionPlan(NamedTuple):
    """What would be done. `command`: what does the same on a command line; `back`: where it was asked for."""

    title: str
    lines: list[str]
    command: str
    back: str


#: the field that names the plan which was confirmed
_PLAN = "plan"


def _form(
    act: Callable[[Site, Form, Author], ActionPlan | str], *, plans: bool = True, as_planned: bool = False
) -> Handler:
    """A form whose function returns where to go once it is done. One that `plans` says first, without `confirmed`, what
    it would do. `as_planned`: what is confirmed is done only if it still means that; otherwise it is said anew."""

    def handler(site: Site, request: Request) -> Answer | str:
        form: Form = request.state.form
        check_engine(site)
        who, action = author_of(request), request.url.path.rpartition("/")[2]
        unchanged = not as_planned or not _confirmed(form) or _still_means(act, site, action, form, who)
        if not plans or (_confirmed(form) and unchanged):
            done = site.forms.done(who.person or "", action, form, lambda: _acted(act(site, form, who)))
            # who guards the pages notes what was done, and this was not
            request.scope[REPEATED] = done.repeated
            return done.target
        found = act(site, {**form, "confirmed": ""}, who)
        assert isinstance(found, ActionPlan)
        again = {name: value for name, value in form.items() if name not in ("confirmed", FIELD)}
        if as_planned:
            again[_PLAN] = _digest(found)
            if not unchanged:
                found.lines.insert(0, "the chain has moved since you were asked: this is what it means now")
        return Answer("confirm.html", {"title": found.title, "plan": found, "fields": again, "action": action})

    return handler


def _still_means(
    act: Callable[[Site, Form, Author], ActionPlan | str], site: Site, action: str, form: Form, who: Author
) -> bool:
    """Whether a form that is confirmed means what was shown: another person, or a run, may have been faster. One that
    was sent before is not asked again: it acts once."""
    if _PLAN not in form or site.forms.has_acted(who.person or "", action, form):
        return True
    found = act(site, {**form, "confirmed": ""}, who)
    return isinstance(found, ActionPlan) and _digest(found) == form.get(_PLAN)


def _digest(plan: ActionPlan) -> str:
    return digest(canonical_json([plan.title, plan.lines])).removeprefix("sha256:")[:32]


def _acted(found: ActionPlan | str) -> str:
    assert isinstance(found, str)
    return found


def check_engine(site: Site) -> None:
    """Refuse while no engine is alive: a page that is only looked at changes nothing. Raises InputError."""
    site.feed.numbers()
    if site.feed.engine.state in ("none", "database"):
        raise InputError(
            "nothing is done from here while no engine is alive: 'trainflow standalone' or 'trainflow start PIPELINE' "
            "starts one, and each command works without"
        )


def author_of(request: Request) -> Author:
    """Who acts, as the ledger records it."""
    caller = request.scope.get("trainflow.caller")
    return Author(hostname=caller.address, person=caller.name) if caller is not None else Author(person="unknown")


def _confirmed(form: Form) -> bool:
    return form.get("confirmed") == "yes"


def _field(form: Form, name: str) -> str:
    """A field that has to be there. Raises InputError."""
    value = form.get(name, "").strip()
    if not value:
        raise InputError(f"the form lacks '{name}'")
    return value


# -- chains ------------------------------------------------------------------------------------------------------------


class _Chosen(NamedTuple):
    file: OpenedPipeline
    chain: PipelineChain
    key: ChainKey
    page: str


def _chosen(site: Site, form: Form) -> _Chosen:
    """The chain of a form, its file read anew."""
    key = ChainKey(_field(form, "pipeline"), _field(form, "stage"), _field(form, "branch"))
    snapshot = site.snapshot_of(key)
    if snapshot is None:
        raise InputError(f"no pipeline of this project trains a chain {key}")
    path = site.workspace.project.absolute(snapshot.path)
    trains_it = snapshot.chain is not None and snapshot.chain.branch == key.branch
    # a branch that is not whole is refused: what is begun here would be the chain that it was forked from
    file = as_branch(read_as_in_force(site.workspace, path, snapshot.dag_id if trains_it else None), key.branch)
    page = f"chains/{key.pipeline}/{key.stage}/{key.branch}"
    return _Chosen(file, file.one_chain(key.stage, key.branch), key, page)


def _resume(site: Site, form: Form, who: Author) -> ActionPlan | str:
    chosen = _chosen(site, form)
    decision = _field(form, "decision")
    if decision not in ("accept", "skip", "rewind", "again"):
        raise InputError(f"there is no decision '{decision}'")
    back = _count(form.get("rewind") or "1", "rewind") if decision == "rewind" else 0
    asked = ResumeRequest(
        decision=decision,  # type: ignore[arg-type]
        rewind=back,
        stage=chosen.key.stage,
        branch=chosen.key.branch,
        only_record=True,
    )
    option = {"again": "", "rewind": f" --rewind {back}"}.get(decision, f" --{decision}")
    command = f"trainflow resume {chosen.key.arguments}{option}"
    if not _confirmed(form):
        planned = plan_resume(chosen.file, asked, now=site.now)
        said = planned.sentence if planned else "the next run looks at the samples again"
        lines = [said, "then a run is queued, which goes on from there"]
        return ActionPlan(f"Resume {chosen.key}", lines, command, chosen.page)
    resume(chosen.file, asked, who=who, now=site.now, reason=form.get("reason", ""))
    site.watch.forget(chosen.chain.dag_id)
    dag_id, now = chosen.chain.dag_id, site.now
    site.workspace.database.write(lambda connection: begin_unless_under_way(connection, dag_id, now))
    site.workspace.wake_engine()
    return chosen.page


def _promote(site: Site, form: Form, who: Author) -> ActionPlan | str:
    chosen = _chosen(site, form)
    which, alias = _field(form, "which"), _field(form, "alias")
    back = f"{chosen.page}/checkpoints/{segment(which)}"
    if not _confirmed(form):
        planned = plan_promote(chosen.file, chosen.chain, which, alias, now=site.now)
        lines = [f"checkpoint {planned.number} gets the alias {planned.alias}; what had it loses it"]
        lines += [f"{each.dag_id} starts from it" for each in planned.dependents]
        command = f"trainflow checkpoints promote {chosen.key.arguments} {which} --alias {alias}"
        return ActionPlan(f"Promote checkpoint {planned.number}", lines, command, back)
    promote(chosen.file, chosen.chain, which, alias, who=who, now=site.now, reason=form.get("reason", ""))
    return back


def _rewind(site: Site, form: Form, who: Author) -> ActionPlan | str:
    chosen = _chosen(site, form)
    to, cascade = _field(form, "to"), form.get("cascade") == "yes"
    plan = plan_rewind(chosen.chain, to=to, before=None, now=site.now, cascade=cascade)
    if not _confirmed(form):
        lines = _rewound(plan.outcome(dry_run=True))
        command = f"trainflow checkpoints rewind {chosen.key.arguments} --to {to}{' --cascade' if cascade else ''}"
        return ActionPlan(f"Rewind {chosen.key}", lines, command, chosen.page)
    rewind(chosen.file, chosen.chain, plan, who=who, now=site.now, reason=form.get("reason", ""))
    site.watch.forget(chosen.chain.dag_id)
    return chosen.page


def _rewound(planned: RewindDone) -> list[str]:
    lines = []
    for each in planned.rewound:
        where = f"checkpoint {each.to}" if each.to else "before its first checkpoint"
        lines.append(
            f"{each.chain}: from checkpoint {each.from_} back to {where}; {counted(each.undone, 'checkpoint')}"
        )
        lines += [f"alias {alias} moves with it" for alias in each.aliases]
        if each.missing:
            missing = f"{counted(len(each.missing), 'partition')} of that {agreeing(len(each.missing), 'is', 'are')}"
            lines.append(
                f"{missing} not there any more and cannot be trained again, the first is {label(each.missing[0])}"
            )
    return [*lines, "no file is deleted; what is undone is trained again by the next run"]


# -- runs and DAGs -----------------------------------------------------------------------------------------------------


def _run_page(form: Form) -> str:
    return f"dags/{segment(_field(form, 'dag'))}/runs/{segment(_field(form, 'run'))}"


def _clear(site: Site, form: Form, _who: Author) -> ActionPlan | str:
    dag, run, task = _field(form, "dag"), _field(form, "run"), form.get("task", "")
    asked = run_actions.ClearRequest(runs=[run], tasks=[task] if task else [], failed=form.get("failed") == "yes")
    if not _confirmed(form):
        (planned,) = run_actions.plan_clear(site.workspace, dag, asked)
        lines = [f"run {planned.number} runs again: {', '.join(planned.cleared)}"]
        command = f"trainflow runs clear {dag} {run}{f' --task {task}' if task else ''}"
        return ActionPlan(f"Clear run {planned.number} of {dag}", lines, command, _run_page(form))
    run_actions.clear(site.workspace, dag, asked, site.now)
    return _run_page(form)


def _cancel(site: Site, form: Form, who: Author) -> ActionPlan | str:
    dag, run = _field(form, "dag"), _field(form, "run")
    if not _confirmed(form):
        planned = run_actions.plan_cancel(site.workspace, dag, run, site.now)
        lines = [f"run {planned.run.number} ends as failed"]
        lines += [f"told to stop: {', '.join(planned.failing)}"] if planned.failing else []
        lines += [f"never run: {', '.join(planned.skipped)}"] if planned.skipped else []
        command = f"trainflow runs cancel {dag} {run}"
        return ActionPlan(f"Cancel run {planned.run.number} of {dag}", lines, command, _run_page(form))
    run_actions.cancel(site.workspace, dag, run, site.now, note=f"cancelled by {who.person}")
    return _run_page(form)


def _mark(site: Site, form: Form, who: Author) -> ActionPlan | str:
    dag, run, task, state = (_field(form, name) for name in ("dag", "run", "task", "state"))
    page = f"{_run_page(form)}/tasks/{segment(task)}"
    if not _confirmed(form):
        planned = plan_mark(site.workspace, dag, run, task, state)
        lines = [f"task {task} is {state} from now on, without having been run"]
        if planned.state == "failed":
            lines = [f"task {task} counts as failed from now on; an attempt that is at work is told to stop"]
        lines += [f"these run again: {', '.join(planned.cleared)}"] if planned.cleared else []
        command = f"trainflow tasks mark {dag} {run} {task} --{state}"
        return ActionPlan(f"Mark {task} as {state}", lines, command, page)
    note = form.get("reason", "").strip() or f"marked by {who.person}"
    mark_task(site.workspace, dag, run, task, state, site.now, note=note)
    return page


def _trigger(site: Site, form: Form, _who: Author) -> ActionPlan | str:
    dag = _field(form, "dag")
    detail = dag_detail(site.workspace, dag)
    try:
        conf = conf_of(detail.document["params"], form)
    except ValueError as error:
        raise InputError(str(error)) from None
    note = form.get("note", "").strip() or None
    asked = run_actions.RunRequest(conf=conf, note=note, run_id=form.get("run_id", "").strip() or None)
    done = run_actions.trigger(site.workspace, dag, asked, site.now)
    return f"dags/{segment(dag)}/runs/{segment(done.run.run_id)}"


def _pause(site: Site, form: Form, _who: Author) -> ActionPlan | str:
    dag = _field(form, "dag")
    set_paused(site.workspace, dag, paused=form.get("paused") == "yes")
    return f"dags/{segment(dag)}"


def _count(text: str, name: str) -> int:
    if not text.isdecimal() or not 0 < int(text[:9]) < 1_000_000:
        raise InputError(f"{name}: {text!r} is no number of checkpoints")
    return int(text)


FORMS: dict[str, Any] = {
    "resume": _form(_resume, as_planned=True),
    "promote": _form(_promote, as_planned=True),
    "rewind": _form(_rewind, as_planned=True),
    "clear": _form(_clear),
    "cancel": _form(_cancel),
    "mark": _form(_mark),
    "trigger": _form(_trigger, plans=False),
    "pause": _form(_pause, plans=False),
}
