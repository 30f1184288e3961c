"""`sendback identities`: manage the addresses and domains that mail is received for."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError
from sendback.cli.options import Json, StoreOptions, on_store
from sendback.cli.output import print_fields, print_json, print_rows, say

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.store.identities.identities import Identity

app = typer.Typer(
    help="Manage the addresses and domains that mail is received for and bounced from.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="ADDRESS|DOMAIN")]


@app.command("list")
@on_store
def list_identities(
    as_json: Json = False,
    *,
    options: StoreOptions,
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

    rows = options.run(work)
    print_rows(rows, ("identity", "kind", "status", "created_at"), as_json=as_json)


@app.command("verify")
@on_store
def verify(
    name: Name,
    dkim: Annotated[
        bool, typer.Option(help="Also create DKIM keys for the domain, and sign with them.")
    ] = False,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Add an address or a domain, and begin to verify it.

    The owner of an address gets a mail with a link. A domain needs the DNS records that
    `sendback identities records` prints.
    """

    async def work(app: "App", settings: "Settings") -> dict[str, Any]:
        from sendback.store.access.accounts import AddAccount

        account_id = settings.account_id
        await app.check_secret()
        await app.store.write(AddAccount(account_id, app.clock.now()))
        verify_identity = (
            app.identities.verify_email if "@" in name else app.identities.verify_domain
        )
        await verify_identity(account_id, name)
        if dkim:
            await app.identities.verify_dkim(account_id, name)
            await app.identity_attributes.set_dkim_enabled(account_id, name, enabled=True)
        return _row((await app.identities.find(account_id, [name]))[name])

    print_fields(options.run(work, decides=True), as_json=as_json)


@app.command("records")
@on_store
def records(name: Name, as_json: Json = False, *, options: StoreOptions) -> None:
    """Print the DNS records that a domain needs."""

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        from sendback.service.identities.dns_records import wanted_records

        found = await wanted_records(app.store, settings.account_id, name, settings.hostname)
        return [{"name": r.name, "type": r.kind, "value": r.value, "for": r.purpose} for r in found]

    rows = options.run(work)
    if not rows:
        raise CommandFailedError(f"{name} needs no records: it is not a domain of the account")
    if as_json:
        print_json(rows)
        return
    for row in rows:  # one below the other: values are long, and are copied
        say(f"{row['name']}  {row['type']}   ({row['for']})\n    {row['value']}")


@app.command("check")
@on_store
def check(name: Name, as_json: Json = False, *, options: StoreOptions) -> None:
    """Check the DNS records of a domain now, and print the results.

    A running server also checks them by itself. Exit code 1 if a record is missing.
    """

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        found = await app.identity_checks.check(settings.account_id, name)
        app.identity_checks.close()
        return [
            {
                "what": check.kind.value,
                "status": check.status.value,
                "reason": check.reason or None,
                "next_check": check.due_at,
            }
            for check in found
        ]

    rows = options.run(work)
    if not rows and not as_json:
        raise CommandFailedError(
            f"{name} has nothing to check: it was verified without DNS, or is not a domain of the "
            "account"
        )
    columns = ("what", "status", "reason", "next_check")
    print_rows(rows, columns, as_json=as_json, whole=True)
    if any(row["reason"] for row in rows):
        raise typer.Exit(1)


@app.command("sign")
@on_store
def sign(
    name: Name,
    on: Annotated[bool, typer.Option("--on/--off", help="Whether to sign.")] = True,
    *,
    options: StoreOptions,
) -> None:
    """Turn DKIM signing on or off, for a domain or for one address of it."""

    async def work(app: "App", settings: "Settings") -> None:
        await app.identity_attributes.set_dkim_enabled(settings.account_id, name, enabled=on)

    options.run(work)
    say(f"Within a minute, mail from {name} is {'signed' if on else 'not signed'}.")


@app.command("rotate-dkim")
@on_store
def rotate_dkim(name: Name, as_json: Json = False, *, options: StoreOptions) -> None:
    """Replace the active DKIM keys by the standby keys.

    The standby keys must be in DNS already; new ones are created in their place. Keep the records
    of the old keys for a week: mail that they signed may not be delivered yet.
    """

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        keys = await app.identities.rotate_dkim(settings.account_id, name)
        return [
            {
                "selector": key.selector,
                "algorithm": key.algorithm,
                "state": key.state.value,
                "record": key.record_name,
            }
            for key in keys
        ]

    rows = options.run(work)
    columns = ("selector", "algorithm", "state", "record")
    print_rows(rows, columns, as_json=as_json, whole=True)


@app.command("delete")
@on_store
def delete(
    name: Name,
    *,
    options: StoreOptions,
) -> None:
    """Delete an identity: mail for it is refused from now on."""

    async def work(app: "App", settings: "Settings") -> bool:
        return await app.identities.delete(settings.account_id, name)

    if not options.run(work):
        raise CommandFailedError(f"there is no identity {name}: see `sendback identities list`")
    say(f"{name} is deleted.")


def _row(identity: "Identity") -> dict[str, Any]:
    return {
        "identity": identity.identity,
        "kind": identity.kind.value,
        "status": identity.status.value,
        "verification_token": identity.verification_token or None,
        "created_at": identity.created_at,
    }
