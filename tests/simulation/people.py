"""What people do while nothing goes wrong: they begin, they decide about what gates refused, and they rewind."""

from __future__ import annotations

from tests.simulation.chain_check import ChainCheck
from tests.simulation.database import SimulatedCrash
from tests.simulation.pipeline import BRANCH, SOURCE, overrides_of
from tests.simulation.plan import Shape
from tests.simulation.world import World
from trainflow.actions.chains.fork import BranchRequest, plan_fork
from trainflow.actions.chains.fork import fork as fork_chains
from trainflow.actions.first_runs import begin as begin_pipeline
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.manual_decisions import accept, retry_refused, rewind_refused, skip_refused
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.ledger_changes.regrid import regrid as regrid_chain
from trainflow.checkpoints.ledger_changes.rewind import rewind as rewind_chain
from trainflow.errors import ArtifactCorrupt, InputError
from trainflow.messages.workload import DagSource
from trainflow.samples.grid import grid_of
from trainflow.samples.splits.next_split import NextSplit, SplitFound, next_split
from trainflow.workspace.branches import overrides_of_branch
from trainflow.workspace.workspace import Workspace

#: so often a person tries things before accepting what was refused
MOST_DECISIONS = 3


def could_begin(world: World) -> bool:
    """A person sees that nothing is under way although there is something to train on."""
    if world.unfinished_runs or world.stopped or world.ledger.is_short:
        return False
    if world.has_other_samples:
        return True
    if not world.arrivals:
        return not world.is_trained
    # what follows a base is triggered by it
    return any(isinstance(_next_split(world, dag_id), SplitFound) for dag_id in world.pipeline.roots)


def _next_split(world: World, dag_id: str) -> NextSplit:
    """What `trainflow plan` says."""
    checker, chain = world.pipeline.checker(dag_id), world.ledger.chains[world.pipeline.chains[dag_id]]
    return next_split(checker.samples, chain.watermark, checker.limits, world.clock.now(), world.project.root)


def begin(world: World) -> str:
    """`trainflow start`, after `trainflow regrid` where that is asked for."""
    world.begins += 1
    regrid(world)
    world.invariants.reports.by_person = True
    try:
        workspace = Workspace(world.project, world.settings, world.database)
        begin_pipeline(workspace, SOURCE, world.clock.now())
        if world.branch is not None:
            begin_pipeline(workspace, _source_of_branch(world, workspace), world.clock.now())
    except SimulatedCrash:
        return "begins, and does not live to see it"
    world.wake()
    return "begins"


def _source_of_branch(world: World, workspace: Workspace) -> DagSource:
    """The file as a start of the branch reads it: what it was forked with is in its ledger."""
    path = world.project.root / SOURCE.path
    overrides = overrides_of_branch(workspace, path, BRANCH, {})
    if overrides != world.branch:
        world.add_branch(overrides)
    return DagSource(SOURCE.path, overrides)


def fork(world: World) -> None:
    """`trainflow checkpoints fork`, of all chains from their heads. Raises InputError where there is none."""
    workspace, path = Workspace(world.project, world.settings, world.database), world.project.root / SOURCE.path
    overrides = overrides_of(world.scenario)
    plan = plan_fork(world.read_pipeline(workspace, path, {}), BranchRequest(branch=BRANCH, overrides=overrides))
    fork_chains(plan, who=Author(), now=world.clock.now())
    for home in world.homes:
        home.add_branch({**overrides, "branch": BRANCH})


def regrid(world: World) -> None:
    """`trainflow regrid` of every chain whose samples were changed."""
    for dag_id, key in world.pipeline.chains.items():
        ledger, grid = Ledger(world.store, key), grid_of(world.pipeline.checker(dag_id).samples)
        head = ledger.state().head
        regrid_chain(ledger, grid, expected_head=head.id if head else None, by=Author(), now=world.clock.now())


def rewind(world: World, chain: ChainCheck) -> None:
    """`trainflow checkpoints rewind` to the newest ancestor of the head that has its files."""
    to = next((name for name in chain.ancestors() if not chain.kept[name].pruned), None)
    ledger = Ledger(world.store, chain.key)
    rewind_chain(ledger, to, expected_head=chain.head, by=Author(), now=world.clock.now())


def decide(world: World, choice: float) -> str:
    """`trainflow resume`."""
    world.decisions += 1
    chain = world.stopped[0]
    ledger, refused, now = Ledger(world.store, chain.key), chain.stopped or "", world.clock.now()
    # who always tries again never comes to an end
    decision = 0 if world.decisions > MOST_DECISIONS else int(choice * 4)
    try:
        if decision == 1:
            skip_refused(ledger, refused, by=Author(), now=now)
        elif decision == 2 and _could_rewind(chain):
            rewind_refused(ledger, refused, 1, by=Author(), now=now)
        elif decision == 3:
            retry_refused(ledger, refused, by=Author(), now=now)
        else:
            accept(ledger, refused, person="operator", now=now)
            if world.scenario.shape is Shape.PROMOTED:
                # what gates refused is not promoted by itself
                promote(ledger, refused, "champion", by=Author(), now=now)
    except (ArtifactCorrupt, InputError):
        # its files were damaged, or another stage went on from there
        retry_refused(ledger, refused, by=Author(), now=now)
    return f"decides ({decision})"


def _could_rewind(chain: ChainCheck) -> bool:
    """There is something to undo, and what was before it has its files."""
    before = chain.ancestors()[:1]
    return chain.head is not None and not any(chain.kept[name].pruned for name in before)
