"""`trainflow tokens`: create, list, revoke."""

from __future__ import annotations

import typer

from trainflow.cli.arguments import duration_of, person
from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows, text
from trainflow.workspace.workspace import open_workspace

tokens = typer.Typer(name="tokens", help="Tokens of the API server, for people and programs.", no_args_is_help=True)

_COLUMNS = {
    "name": "TOKEN",
    "role": "ROLE",
    "state": "STATE",
    "created_at": "CREATED",
    "created_by": "BY",
    "expires_at": "EXPIRES",
}


@tokens.command("create")
def create(
    name: str = typer.Argument(metavar="NAME", help="Whose it is: a person, or a program. It stands in the ledgers."),
    role: str = typer.Option(
        "viewer", "--role", metavar="ROLE", help="viewer (looks), operator (acts) or admin (deletes, stops)."
    ),
    expires: str | None = typer.Option(None, "--expires", metavar="DURATION", help="E.g. 90d; default: never."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Make a token, and print it: once, it is kept nowhere.

    It is shown to the API server as 'Authorization: Bearer TOKEN'.

    JSON: {name, role, expires_at, token}.
    """
    from trainflow.actions.tokens import create_token
    from trainflow.clock import SystemClock

    lifetime = None if expires is None else duration_of(expires, "--expires")
    with open_workspace() as workspace:
        made = create_token(workspace, name, role, who=person().person, now=SystemClock().now(), lifetime=lifetime)
    if as_json:
        print_json(made)
        return
    until = f", until {text(made.expires_at)}" if made.expires_at else ""
    typer.echo(f"token '{made.name}' with the role {made.role}{until}; it is not shown again:", err=True)
    typer.echo(made.token)


@tokens.command("list")
def list_tokens(as_json: bool = JSON_OPTION) -> None:
    """List the tokens that were made, not what they are.

    JSON: [{name, role, state (valid | revoked | expired), created_at, created_by, expires_at, revoked_at}].
    """
    import msgspec

    from trainflow.clock import SystemClock
    from trainflow.insight import tokens as insight

    with open_workspace() as workspace:
        found = insight.list_tokens(workspace, SystemClock().now())
    if as_json:
        print_json(found)
        return
    rows = [
        {**msgspec.structs.asdict(each), "created_at": text(each.created_at), "expires_at": text(each.expires_at)}
        for each in found
    ]
    print_rows(rows, _COLUMNS, empty="no token was made")


@tokens.command("revoke")
def revoke(name: str = typer.Argument(metavar="NAME", help="The token's name."), as_json: bool = JSON_OPTION) -> None:
    """Revoke a token: servers refuse it within 5 s.

    JSON: {name, role, revoked_at}.
    """
    from trainflow.actions.tokens import revoke_token
    from trainflow.clock import SystemClock

    with open_workspace() as workspace:
        done = revoke_token(workspace, name, who=person().person, now=SystemClock().now())
    if as_json:
        print_json(done)
    else:
        typer.echo(f"token '{done.name}' is revoked")
