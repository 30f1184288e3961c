"""`sendback identities`: addresses and domains that mail is received for and bounced from."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError
from sendback.cli.options import ConfigFile, Database, DataDir, Json, with_app
from sendback.cli.output import print_fields, print_rows

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config import Settings
    from sendback.store.values import Identity

app = typer.Typer(
    help="Addresses and domains that mail is received for and bounced from.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="ADDRESS|DOMAIN")]


@app.command("list")
def list_identities(
    as_json: Json = False,
    data_dir: DataDir = None,
    database: Database = None,
    config: ConfigFile = None,
) -> None:
    """List the identities."""

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        token: str | None = None
        while True:
            page = await app.identities.list(settings.account_id, None, token, 1000)
            rows += [_row(identity) for identity in page.identities]
            token = page.next_token
            if token is None:
                return rows

    rows = with_app(config, data_dir, database, work)
    print_rows(rows, ("identity", "kind", "status", "created_at"), as_json=as_json)


@app.command("verify")
def verify(
    name: Name,
    as_json: Json = False,
    data_dir: DataDir = None,
    database: Database = None,
    config: ConfigFile = None,
) -> None:
    """Add an address or a domain."""

    async def work(app: "App", settings: "Settings") -> dict[str, Any]:
        from sendback.store.accounts import AddAccount

        await app.store.write(AddAccount(settings.account_id, app.clock.now()))
        ask = app.identities.verify_email if "@" in name else app.identities.verify_domain
        return _row(await ask(settings.account_id, name))

    print_fields(with_app(config, data_dir, database, work, may_create=True), as_json=as_json)


@app.command("delete")
def delete(
    name: Name,
    data_dir: DataDir = None,
    database: Database = None,
    config: ConfigFile = None,
) -> None:
    """Delete an identity: its mail is refused from now on."""

    async def work(app: "App", settings: "Settings") -> bool:
        return await app.identities.delete(settings.account_id, name)

    if not with_app(config, data_dir, database, work):
        raise CommandFailedError(f"there is no identity {name}")
    typer.echo(f"{name} is deleted.")


def _row(identity: "Identity") -> dict[str, Any]:
    return {
        "identity": identity.identity,
        "kind": identity.kind.value,
        "status": identity.status.value,
        "verification_token": identity.verification_token,
        "created_at": identity.created_at,
    }
