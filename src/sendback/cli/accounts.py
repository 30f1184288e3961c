"""`sendback accounts` and `sendback users`: whose everything is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError
from sendback.cli.options import Json, StoreOptions, on_store
from sendback.cli.output import print_fields, print_rows, say

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.store.access.accounts import Account
    from sendback.store.access.users import User

app = typer.Typer(
    help="Accounts: each has its own identities, rules, messages, keys.", no_args_is_help=True
)
users = typer.Typer(
    help="Users of an account. One without policies may do all that the account may.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="USER")]


@app.command("create")
@on_store
def create(
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    account_id: Annotated[
        str | None, typer.Option("--id", help="12 digits.", show_default="a new one")
    ] = None,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Make an account. It can do nothing before it has a key: `sendback keys create --account`."""

    async def work(app: "App", _: "Settings") -> str:
        return await app.accounts.create(account_id, name)

    made = options.run(work, may_create=True)
    print_fields({"account": made, "name": name}, as_json=as_json)


@app.command("list")
@on_store
def list_accounts(as_json: Json = False, *, options: StoreOptions) -> None:
    """List the accounts."""

    async def work(app: "App", _: "Settings") -> "Sequence[Account]":
        return await app.accounts.list()

    rows = [
        {"account": account.account_id, "name": account.name, "created_at": account.created_at}
        for account in options.run(work)
    ]
    print_rows(rows, ("account", "name", "created_at"), as_json=as_json)


@users.command("create")
@on_store
def create_user(name: Name, *, options: StoreOptions) -> None:
    """Make a user."""

    async def work(app: "App", settings: "Settings") -> None:
        await app.accounts.create_user(settings.account_id, name)

    options.run(work)
    say(f"{name} is made. A key for it: sendback keys create --user {name}")


@users.command("list")
@on_store
def list_users(as_json: Json = False, *, options: StoreOptions) -> None:
    """List the account's users and the policies that restrict them."""

    async def work(app: "App", settings: "Settings") -> "Sequence[User]":
        return await app.accounts.users(settings.account_id)

    rows: list[dict[str, Any]] = [
        {
            "user": user.name,
            "created_at": user.created_at,
            "policies": [policy.name for policy in user.policies],
        }
        for user in options.run(work)
    ]
    print_rows(rows, ("user", "created_at", "policies"), as_json=as_json)


@users.command("delete")
@on_store
def delete_user(name: Name, *, options: StoreOptions) -> None:
    """Delete a user with its keys and policies."""

    async def work(app: "App", settings: "Settings") -> bool:
        return await app.accounts.delete_user(settings.account_id, name)

    if not options.run(work):
        raise CommandFailedError(f"the account has no user {name}")
    say(f"{name} is deleted, with its keys and policies.")
