"""`sendback faults`: make the server fail on purpose."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.options import Json, StoreOptions, on_store
from sendback.cli.output import print_fields, print_rows, say

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.store.faults.rules import StoredFault

app = typer.Typer(
    help="Make the server fail on purpose: SMTP replies, API errors, deliveries, actions.",
    no_args_is_help=True,
)


@app.command("add")
@on_store
def add(
    at: Annotated[
        str,
        typer.Argument(
            metavar="POINT",
            help="connect, mail, rcpt, data or end (of SMTP), api, delivery or action.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The name of the fault.", show_default="fault-1, …")
    ] = None,
    client: Annotated[
        str | None, typer.Option(help="Only for this IP address or network (SMTP, api).")
    ] = None,
    sender: Annotated[
        str | None,
        typer.Option(help="Only for this sender: an address or a domain, with * and ?; or <>."),
    ] = None,
    recipient: Annotated[
        str | None, typer.Option(help="Only for this recipient: an address or a domain.")
    ] = None,
    operation: Annotated[
        str | None, typer.Option(help="Only for this operation, such as SendBounce (api).")
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="Only for this kind: S3, SNS, Lambda … (action).")
    ] = None,
    first: Annotated[int | None, typer.Option(help="Only the first N events that match.")] = None,
    every: Annotated[int | None, typer.Option(help="Only every Nth event that matches.")] = None,
    start: Annotated[int | None, typer.Option("--from", help="From the Nth event on.")] = None,
    only: Annotated[int | None, typer.Option(help="Only the Nth event.")] = None,
    probability: Annotated[
        float | None, typer.Option(help="Only this share of the events, from 0 to 1.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Selects which events the probability selects.")
    ] = None,
    delay: Annotated[float | None, typer.Option(help="Seconds to wait before the effect.")] = None,
    reply: Annotated[
        str | None,
        typer.Option(help="An SMTP reply, such as '451 4.7.1 Later' (SMTP, delivery)."),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Close the connection (SMTP, api).")] = False,
    error: Annotated[
        str | None, typer.Option(help="An error code, such as Throttling (api).")
    ] = None,
    lost: Annotated[
        bool, typer.Option("--lost", help="Carry out the call, and lose its answer (api).")
    ] = False,
    failure: Annotated[
        str | None, typer.Option(help="temporary or permanent (delivery, action).")
    ] = None,
    text: Annotated[str | None, typer.Option(help="The text of the error or failure.")] = None,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Add a fault. A running server injects it within a second.

    POINT is where it fails: instead of the greeting (connect), the reply to a command (mail, rcpt,
    data) or to a message (end), an API call, a delivery in capture mode, or an action of a rule.

    Greylist the first two attempts: sendback faults add rcpt --reply '451 4.7.1 Later' --first 2

    Lose one answer: sendback faults add api --operation SendBounce --lost --first 1
    """
    members: dict[str, Any] = {
        "at": at, "name": name, "client": client, "sender": sender, "recipient": recipient,
        "operation": operation, "action": action, "first": first, "every": every, "from": start,
        "only": only, "probability": probability, "seed": seed, "delay": delay, "reply": reply,
        "drop": drop or None, "error": error, "lost": lost or None, "failure": failure,
        "text": text,
    }  # fmt: skip

    async def work(app: "App", _: "Settings") -> "StoredFault":
        given = {member: value for member, value in members.items() if value is not None}
        return await app.faults.add(app.faults.from_json(given))

    stored = options.run(work, decides=True)
    if as_json:
        print_fields(_row(stored), as_json=True)
    else:
        rule = stored.rule
        when = f"at {rule.at}, {rule.selected}, {rule.counted}"
        say(f"Fault {rule.name} is added: {when}: {rule.effect}.")


@app.command("list")
@on_store
def list_faults(as_json: Json = False, *, options: StoreOptions) -> None:
    """List the faults in the order in which they are tried, with their counters.

    `matched` is the number of events that the selectors of a fault matched, `injected` how many of
    these failed.
    """

    async def work(app: "App", _: "Settings") -> list[dict[str, Any]]:
        return [_row(stored, as_json=as_json) for stored in await app.faults.list()]

    columns = ("name", "at", "for", "when", "effect", "matched", "injected")
    print_rows(options.run(work), columns, as_json=as_json, drop=("for", "when"))


@app.command("remove")
@on_store
def remove(
    name: Annotated[str, typer.Argument(help="The name of the fault.")], *, options: StoreOptions
) -> None:
    """Remove a fault."""

    async def work(app: "App", _: "Settings") -> None:
        await app.faults.remove(name)

    options.run(work)
    say(f"Fault {name} is removed.")


@app.command("clear")
@on_store
def clear(*, options: StoreOptions) -> None:
    """Remove all faults."""

    async def work(app: "App", _: "Settings") -> int:
        return await app.faults.clear()

    removed = options.run(work)
    say("There were no faults." if not removed else f"Removed: {removed}.")


def _row(stored: "StoredFault", *, as_json: bool = True) -> dict[str, Any]:
    from sendback.service.faults.faults import Faults

    if as_json:
        return Faults.to_json(stored)
    rule = stored.rule
    return {
        "name": rule.name,
        "at": rule.at.value,
        "for": rule.selected,
        "when": rule.counted,
        "effect": rule.effect,
        "matched": stored.matched,
        "injected": stored.injected,
    }
