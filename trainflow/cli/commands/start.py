"""`trainflow start`: train a pipeline until it is caught up."""

from __future__ import annotations

import typer

from trainflow.cli.arguments import parse_overrides
from trainflow.cli.start_or_follow import train
from trainflow.errors import InputError
from trainflow.workspace.locate import pipeline_path


def start(
    pipeline: str = typer.Argument(
        metavar="PIPELINE", help="A pipeline file (YAML or Python), or the name of one in pipelines/."
    ),
    overrides: list[str] = typer.Option(
        [], "--set", metavar="NAME=VALUE", help="Override a value of the pipeline, e.g. --set split.partitions=7."
    ),
    branch: str | None = typer.Option(
        None, "--branch", metavar="NAME", help="Train this branch, begun with 'trainflow checkpoints fork'."
    ),
    detach: bool = typer.Option(False, "--detach", help="Train in the background and give the terminal back."),
    plain: bool = typer.Option(False, "--plain", help="Plain lines instead of the live panel."),
    open_page: bool = typer.Option(False, "--open", help="Serve the pages of the project meanwhile, and show them."),
    failpoint: int | None = typer.Option(
        None,
        "--failpoint",
        metavar="SEED",
        help="Kill attempts and the engine at random steps while training, then audit.",
    ),
    ready: int | None = typer.Option(None, "--ready-descriptor", hidden=True),
) -> int:
    """Train a pipeline until it is caught up.

    In mode latest until you stop it with Ctrl-C. Continues at the head of the chain. Becomes the engine of the
    project when none is alive, otherwise hands the run to the one that is and follows it. Ctrl-C stops in good order,
    a second Ctrl-C at once; the next start goes on.

    Exit codes: 0 done, 1 the chain or a task failed, 2 wrong input, 130 interrupted.
    """
    path, given = pipeline_path(pipeline), parse_overrides(overrides)
    if detach and open_page:
        raise InputError("--detach gives the terminal back: leave out --open, and look with 'trainflow ui --open'")
    if branch is not None:
        from trainflow.workspace.branches import overrides_of_branch
        from trainflow.workspace.workspace import open_workspace

        with open_workspace(path) as workspace:
            given = overrides_of_branch(workspace, path, branch, given)
    if failpoint is not None:
        from trainflow.cli.commands.start_failpoint import start_with_failpoints
        from trainflow.settings.project import project_of

        if detach or open_page:
            raise InputError("--failpoint is there to be watched: leave out --detach and --open")
        options = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
        return start_with_failpoints(project_of(path), path, failpoint, [*options, "--plain"] if plain else options)
    return train(path, given, detach=detach, plain=plain, ready=ready, open_page=open_page)
