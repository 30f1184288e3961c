"""`sendback keys`: manage the access keys for the API, permanent and temporary."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import Json, StoreOptions, on_store
from sendback.cli.output import print_fields, print_rows, say

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.service.access.keys import IssuedKey
    from sendback.store.access.keys import AccessKey

app = typer.Typer(help="Manage the access keys for the API.", no_args_is_help=True)

User = Annotated[
    str, typer.Option("--user", help="The user of the key; root is the account itself.")
]
KeyId = Annotated[str, typer.Argument(metavar="ACCESS_KEY_ID")]


@app.command("create")
@on_store
def create(user: User = "root", as_json: Json = False, *, options: StoreOptions) -> None:
    """Create an access key of a user. Its secret is shown only now."""

    async def work(app: "App", settings: "Settings") -> "IssuedKey":
        await app.check_secret()
        return await app.keys.create(settings.account_id, user)

    _print_issued(options.run(work), as_json=as_json)


@app.command("temporary")
@on_store
def temporary(
    user: User = "root",
    lasts: Annotated[str, typer.Option(help="How long they are valid, from 15m to 36h.")] = "1h",
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Create temporary credentials, with a session token."""
    from sendback.config.readers import positive_duration

    try:
        duration = positive_duration(lasts)
    except ValueError as error:
        raise usage_error(f"--lasts: {error}") from None

    async def work(app: "App", settings: "Settings") -> "IssuedKey":
        await app.check_secret()
        return await app.keys.create_temporary(settings.account_id, user, duration)

    _print_issued(options.run(work), as_json=as_json)


@app.command("list")
@on_store
def list_keys(
    everyone: Annotated[bool, typer.Option("--all", help="List the keys of all accounts.")] = False,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """List the access keys, without their secrets."""

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        now = app.clock.now()
        return [
            {
                "access_key_id": key.access_key,
                "account": key.account_id,
                "user": key.user_name,
                "created_at": key.created_at,
                "last_used_at": key.last_used_at,
                "expires_at": key.expires_at,
                "state": _state(key, now),
            }
            for key in await app.keys.list(None if everyone else settings.account_id)
        ]

    columns = (
        "access_key_id",
        "account",
        "user",
        "created_at",
        "last_used_at",
        "expires_at",
        "state",
    )
    drop = ("last_used_at", "expires_at", "account")
    print_rows(options.run(work), columns, as_json=as_json, drop=drop)


@app.command("disable")
@on_store
def disable(access_key_id: KeyId, *, options: StoreOptions) -> None:
    """Disable a key. Within a second, requests signed with it are refused."""
    _set_enabled(access_key_id, options, enabled=False)


@app.command("enable")
@on_store
def enable(access_key_id: KeyId, *, options: StoreOptions) -> None:
    """Enable a disabled key. Requests signed with it are accepted again."""
    _set_enabled(access_key_id, options, enabled=True)


@app.command("delete")
@on_store
def delete(access_key_id: KeyId, *, options: StoreOptions) -> None:
    """Delete a key. Within a second, requests signed with it are refused."""

    async def work(app: "App", settings: "Settings") -> bool:
        return await app.keys.delete(settings.account_id, access_key_id)

    if not options.run(work):
        raise CommandFailedError(
            f"the account has no key {access_key_id}: see `sendback keys list`"
        )
    say(f"Key {access_key_id} is deleted.")


def _state(key: "AccessKey", now: datetime) -> str:
    if key.disabled_at:
        return "disabled"
    return "expired" if key.expires_at and key.expires_at <= now else "active"


def _set_enabled(access_key_id: str, options: StoreOptions, *, enabled: bool) -> None:
    async def work(app: "App", settings: "Settings") -> bool:
        account_id = settings.account_id
        return await app.keys.set_enabled(account_id, access_key_id, enabled=enabled)

    if not options.run(work):
        raise CommandFailedError(
            f"the account has no key {access_key_id}: see `sendback keys list`"
        )
    say(f"Key {access_key_id} is {'enabled' if enabled else 'disabled'}.")


def _print_issued(issued: "IssuedKey", *, as_json: bool) -> None:
    fields: dict[str, Any] = {
        "access_key_id": issued.key.access_key,
        "secret_access_key": issued.secret,
        "account": issued.key.account_id,
        "user": issued.key.user_name,
        "session_token": issued.session_token,
        "expires_at": issued.key.expires_at,
    }
    print_fields(fields, as_json=as_json)
