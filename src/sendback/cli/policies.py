"""`sendback policies`: manage the policies of identities and users, and simulate a call."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.files import read_text
from sendback.cli.options import Json, StoreOptions, on_store
from sendback.cli.output import print_fields, print_json, print_rows, say

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.service.access.policy_simulator import Simulation
    from sendback.store.access.users import NamedPolicy

app = typer.Typer(
    help="Manage who may use an identity (sending authorization), and what a user may do.",
    no_args_is_help=True,
)

OfIdentity = Annotated[
    str | None, typer.Option("--identity", help="The identity that the policy is attached to.")
]
OfUser = Annotated[
    str | None, typer.Option("--user", help="The user that the policy is attached to.")
]
Name = Annotated[str, typer.Argument(metavar="NAME")]


@app.command("list")
@on_store
def list_policies(
    identity: OfIdentity = None,
    user: OfUser = None,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """List the policies of an identity or a user."""
    found = options.run(_find(identity, user))
    rows = [
        {
            "policy": policy.name,
            "document": json.loads(policy.document) if as_json else policy.document,
        }
        for policy in found
    ]
    print_rows(rows, ("policy", "document"), as_json=as_json)


@app.command("show")
@on_store
def show(
    name: Name,
    identity: OfIdentity = None,
    user: OfUser = None,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Print a policy document; with --json, also what it is attached to."""
    for policy in options.run(_find(identity, user)):
        if policy.name == name:
            document = json.loads(policy.document)
            attached = {"identity": identity} if identity else {"user": user}
            print_json({"policy": name, **attached, "document": document} if as_json else document)
            return
    raise CommandFailedError(f"there is no policy {name}: see `sendback policies list`")


@app.command("put")
@on_store
def put(
    name: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The document; - is standard input.")
    ],
    identity: OfIdentity = None,
    user: OfUser = None,
    *,
    options: StoreOptions,
) -> None:
    """Attach a policy, or replace the one with its name."""
    _expect_one(identity, user)
    document = read_text(file)

    async def work(app: "App", settings: "Settings") -> None:
        account_id = settings.account_id
        if identity:
            await app.identity_policies.put(account_id, identity, name, document)
        else:
            await app.accounts.put_policy(account_id, user or "", name, document)

    options.run(work)
    say(f"Policy {name} is attached to {identity or user}.")


@app.command("delete")
@on_store
def delete(
    name: Name, identity: OfIdentity = None, user: OfUser = None, *, options: StoreOptions
) -> None:
    """Delete a policy."""
    _expect_one(identity, user)

    async def work(app: "App", settings: "Settings") -> bool:
        account_id = settings.account_id
        if identity:
            return await app.identity_policies.delete(account_id, identity, name)
        return await app.accounts.delete_policy(account_id, user or "", name)

    if not options.run(work):
        raise CommandFailedError(f"there is no policy {name}: see `sendback policies list`")
    say(f"Policy {name} of {identity or user} is deleted.")


@app.command("simulate")
@on_store
def simulate(
    sender: Annotated[str, typer.Option("--from", help="The BounceSender of the call.")],
    user: Annotated[str, typer.Option("--user", help="The user that calls.")] = "root",
    owner: Annotated[
        str | None,
        typer.Option(help="The account that owns the identity.", show_default="the caller's"),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(help="The identity that is used.", show_default="the one that matches --from"),
    ] = None,
    source_ip: Annotated[str, typer.Option(help="The aws:SourceIp of the call.")] = "127.0.0.1",
    at: Annotated[
        str | None,
        typer.Option(help="The aws:CurrentTime, such as 2026-12-31T00:00:00Z.", show_default="now"),
    ] = None,
    secure: Annotated[bool, typer.Option(help="Whether the call uses TLS.")] = False,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Simulate a SendBounce: print whether it is permitted, and why.

    Exit code 0 if it is permitted, 1 if it is refused.
    """
    from sendback.service.access.policy_simulator import Question, simulate_bounce

    async def work(app: "App", settings: "Settings") -> "Simulation":
        question = Question(
            account_id=settings.account_id,
            user=user,
            sender=sender,
            owner=owner,
            identity=identity,
            source_ip=source_ip,
            at=at,
            secure=secure,
        )
        return await simulate_bounce(app.store, app.authorization, settings.region, question)

    found = options.run(work)
    fields: dict[str, Any] = {
        "decision": "permitted" if found.permitted else "refused",
        "because": found.because,
        "caller": found.caller,
        "identity": found.identity or None,
    }
    if as_json:
        fields["statements"] = [
            {"of": step.of, "statement": step.statement, "effect": step.effect, "fails": step.fails}
            for step in found.steps
        ]
        fields["context"] = found.context
    print_fields(fields, as_json=as_json)
    if not as_json and found.steps:
        rows = [
            {
                "of": step.of,
                "statement": step.statement,
                "effect": step.effect,
                "matches": "yes" if step.fails is None else f"no: {step.fails}",
            }
            for step in found.steps
        ]
        print_rows(rows, ("of", "statement", "effect", "matches"), as_json=False)
    if not found.permitted:
        raise typer.Exit(1)


def _find(identity: str | None, user: str | None) -> Any:
    _expect_one(identity, user)

    async def work(app: "App", settings: "Settings") -> "Sequence[NamedPolicy]":
        if identity:
            if not await app.identities.find(settings.account_id, [identity]):
                raise CommandFailedError(
                    f"there is no identity {identity}: see `sendback identities list`"
                )
            return await app.identity_policies.find(settings.account_id, identity)
        users = {entry.name for entry in await app.accounts.users(settings.account_id)}
        if user not in {"root", *users}:
            raise CommandFailedError(f"the account has no user {user}: see `sendback users list`")
        return await app.accounts.policies(settings.account_id, user or "")

    return work


def _expect_one(identity: str | None, user: str | None) -> None:
    if bool(identity) == bool(user):
        raise usage_error("give one of --identity and --user")
