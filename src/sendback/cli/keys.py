"""`sendback keys`: access keys for the API."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError
from sendback.cli.options import ConfigFile, Database, DataDir, Json, with_app
from sendback.cli.output import print_fields, print_rows

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config import Settings

app = typer.Typer(help="Access keys for the API.", no_args_is_help=True)


@app.command("create")
def create(
    user: Annotated[str, typer.Option(help="Whose key it is; error texts name the user.")] = "root",
    as_json: Json = False,
    data_dir: DataDir = None,
    database: Database = None,
    config: ConfigFile = None,
) -> None:
    """Make a key pair. Its secret is shown this once."""

    async def work(app: "App", settings: "Settings") -> dict[str, Any]:
        signer = await app.keys.create(settings.account_id, user)
        return {
            "access_key_id": signer.caller.access_key,
            "secret_access_key": signer.secret,
            "account": signer.caller.account_id,
            "user": signer.caller.user_name,
        }

    print_fields(with_app(config, data_dir, database, work, may_create=True), as_json=as_json)


@app.command("list")
def list_keys(
    as_json: Json = False,
    data_dir: DataDir = None,
    database: Database = None,
    config: ConfigFile = None,
) -> None:
    """List the keys, without their secrets."""

    async def work(app: "App", _: "Settings") -> list[dict[str, Any]]:
        return [
            {
                "access_key_id": key.access_key,
                "account": key.account_id,
                "user": key.user_name,
                "created_at": key.created_at,
            }
            for key in await app.keys.list()
        ]

    rows = with_app(config, data_dir, database, work)
    print_rows(rows, ("access_key_id", "account", "user", "created_at"), as_json=as_json)


@app.command("delete")
def delete(
    access_key_id: Annotated[str, typer.Argument()],
    data_dir: DataDir = None,
    database: Database = None,
    config: ConfigFile = None,
) -> None:
    """Delete a key: requests signed with it are refused from now on (within a second)."""

    async def work(app: "App", _: "Settings") -> bool:
        return await app.keys.delete(access_key_id)

    if not with_app(config, data_dir, database, work):
        raise CommandFailedError(f"there is no key {access_key_id}")
    typer.echo(f"{access_key_id} is deleted.")
