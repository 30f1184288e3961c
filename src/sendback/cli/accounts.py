"""`sendback accounts` and `sendback users`: manage accounts and their users."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import Json, StoreOptions, on_store
from sendback.cli.output import print_fields, print_rows, say

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.store.access.accounts import Account
    from sendback.store.access.users import User

app = typer.Typer(
    help="Manage accounts. Each has its own identities, rules, messages and keys.",
    no_args_is_help=True,
)
users = typer.Typer(
    help="Manage the users of an account. A user without policies has all its rights.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="USER")]


@app.command("create")
@on_store
def create(
    name: Annotated[str, typer.Option(help="A display name.")] = "",
    account_id: Annotated[
        str | None,
        typer.Option("--id", help="The account ID, 12 digits.", show_default="generated"),
    ] = None,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Create an account.

    To call the API it needs an access key: `sendback keys create --account ID`.
    """
    if options.account is not None:
        raise usage_error("--id names the new account: give it instead of --account")

    async def work(app: "App", _: "Settings") -> str:
        return await app.accounts.create(account_id, name)

    created = options.run(work)
    print_fields({"account": created, "name": name or None}, as_json=as_json)


@app.command("list")
@on_store
def list_accounts(as_json: Json = False, *, options: StoreOptions) -> None:
    """List the accounts."""

    async def work(app: "App", _: "Settings") -> "Sequence[Account]":
        return await app.accounts.list()

    rows = [
        {
            "account": account.account_id,
            "name": account.name or None,
            "created_at": account.created_at,
        }
        for account in options.run(work)
    ]
    print_rows(rows, ("account", "name", "created_at"), as_json=as_json)


@users.command("create")
@on_store
def create_user(name: Name, *, options: StoreOptions) -> None:
    """Create a user."""

    async def work(app: "App", settings: "Settings") -> None:
        if options.account is None:  # `serve` and `keys create` add it too
            await app.accounts.ensure(settings.account_id)
        await app.accounts.create_user(settings.account_id, name)

    options.run(work)
    say(f"User {name} is created. To create its access key: sendback keys create --user {name}")


@users.command("list")
@on_store
def list_users(as_json: Json = False, *, options: StoreOptions) -> None:
    """List the users of the account, and the policies that restrict them."""

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
    """Delete a user, its keys and its policies."""

    async def work(app: "App", settings: "Settings") -> bool:
        return await app.accounts.delete_user(settings.account_id, name)

    if not options.run(work):
        raise CommandFailedError(f"the account has no user {name}: see `sendback users list`")
    say(f"User {name} is deleted, with its keys and policies.")


@users.command("password")
@on_store
def set_password(
    name: Name,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Read the password from standard input.")
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the password.")] = False,
    *,
    options: StoreOptions,
) -> None:
    """Set the console password of a user, or of root. Its sessions that began with one end."""
    if remove and stdin:
        raise usage_error("--remove takes no password: give it without --stdin")
    password = "" if remove else _read_password(name, stdin=stdin)

    async def work(app: "App", settings: "Settings") -> bool:
        if remove:
            return await app.passwords.delete(settings.account_id, name)
        if options.account is None:  # `serve` and `keys create` add it too
            await app.accounts.ensure(settings.account_id)
        await app.passwords.set(settings.account_id, name, password)
        return True

    if not options.run(work):
        raise CommandFailedError(f"the user {name} has no console password")
    say(f"The console password of {name} is {'deleted' if remove else 'set'}.")


def _read_password(name: str, *, stdin: bool) -> str:
    """Return the password, from a line of standard input or typed twice without echo."""
    if stdin:
        return typer.get_text_stream("stdin").readline().rstrip("\r\n")
    prompt = f"Console password of {name}"
    text: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=True)
    return text
