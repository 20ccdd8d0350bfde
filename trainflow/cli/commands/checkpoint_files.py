"""`trainflow checkpoints path` and `export`: the files of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE
from trainflow.cli.render.output import JSON_OPTION, print_json
from trainflow.humanize import agreeing, counted
from trainflow.workspace.names import checkpoint_argument
from trainflow.workspace.pipelines import open_pipeline

WHICH = typer.Argument(
    None,
    metavar="[NUMBER|head|ID|@ALIAS]",
    help="The checkpoint's number, its id, its alias, or the head (the default). PIPELINE:27 and PIPELINE@champion "
    "name one, too.",
)


def path(
    pipeline: str = PIPELINE,
    which: str | None = WHICH,
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Print where the files of a checkpoint are.

    The folder, where the store is on this machine: they are read-only there. Else the address; files that did not
    change since an earlier checkpoint lie with that one, so 'checkpoints export' is what brings them together.

    JSON: {pipeline, stage, branch, number, id, path (null: the store is elsewhere), uri, elsewhere (how many of the
    files lie with an earlier checkpoint)}.
    """
    from trainflow.insight.chains.checkpoints import checkpoint_place

    pipeline, named = checkpoint_argument(pipeline, which)
    with open_pipeline(pipeline) as file:
        found = checkpoint_place(file.one_chain(stage, branch), named)
    if as_json:
        print_json(found)
        return 0
    typer.echo(found.path or found.uri)
    if found.elsewhere:
        lie = f"{counted(found.elsewhere, 'file')} of it {agreeing(found.elsewhere, 'lies', 'lie')} elsewhere"
        typer.echo(f"{lie}: 'trainflow checkpoints export {found.chain.arguments}' copies all of them", err=True)
    return 0


def export(
    pipeline: str = PIPELINE,
    which: str | None = WHICH,
    to: Path = typer.Option(..., "--to", "-o", metavar="FOLDER", help="A folder that is empty, or not there yet."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Copy all files of a checkpoint to a folder.

    Every digest is checked; files that lie with an earlier checkpoint come along.

    JSON: {pipeline, stage, branch, number, id, folder, files, bytes}.
    """
    from trainflow.cli.render.file_progress import showing_files
    from trainflow.insight.chains import checkpoints

    pipeline, named = checkpoint_argument(pipeline, which)
    with open_pipeline(pipeline) as file, showing_files():
        done = checkpoints.export(file.one_chain(stage, branch), named, to)
    if as_json:
        print_json(done)
    else:
        typer.echo(
            f"checkpoint {done.number}: {counted(done.files, 'file')}, {counted(done.bytes, 'byte')} in {done.folder}"
        )
    return 0
