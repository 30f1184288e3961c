"""`sendback outbox`: the bounces, and what became of them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import Json, Limit, Place, on_store
from sendback.cli.output import print_fields, print_rows

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config import Settings
    from sendback.store.values import Attempt, OutboxMessage, OutboxState

app = typer.Typer(help="Bounces, and what became of them.", no_args_is_help=True)

MessageId = Annotated[str, typer.Argument(help="The MessageId that SendBounce answered.")]
STATES = ("queued", "delivered", "captured", "failed", "expired", "cancelled")


@app.command("list")
@on_store
def list_outbox(
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(STATES)}.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
    *,
    place: Place,
) -> None:
    """List bounces, the newest first."""
    if state is not None and state not in STATES:
        raise usage_error(f"--state is one of {', '.join(STATES)}, not {state!r}")

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        from sendback.store.outbox import ListOutbox
        from sendback.store.values import OutboxState

        wanted = OutboxState(state) if state else None
        found = await app.store.read(ListOutbox(settings.account_id, wanted, limit))
        return [_row(message) for message in found]

    rows = place.run(work)
    columns = ("created_at", "message_id", "recipient", "state", "attempts", "last_reply")
    print_rows(rows, columns, as_json=as_json)


@app.command("show")
@on_store
def show_outbox(
    message_id: MessageId,
    raw: Annotated[bool, typer.Option(help="Print the bounce itself, as it is sent.")] = False,
    as_json: Json = False,
    *,
    place: Place,
) -> None:
    """Show a bounce: its state, every attempt to deliver it, and with --raw all of it."""

    async def work(app: "App", settings: "Settings") -> "tuple[OutboxMessage, list[Attempt]]":
        from sendback.store.outbox import ShowOutbox

        found = await app.store.read(ShowOutbox(settings.account_id, message_id))
        if found is None:
            raise _unknown(message_id)
        return found[0], list(found[1])

    message, attempts = place.run(work)
    if raw:
        typer.echo(message.content, nl=False)
        return
    rows = [_attempt(attempt) for attempt in attempts]
    fields = _row(message)
    if as_json:
        content = message.content.decode("utf-8", "replace")
        print_fields({**fields, "tries": rows, "content": content}, as_json=True)
        return
    print_fields(fields, as_json=False)
    typer.echo()
    print_rows(
        rows, ("started_at", "outcome", "peer", "tls", "milliseconds", "reply"), as_json=False
    )
    typer.echo("The mail itself: add --raw")


@app.command("retry")
@on_store
def retry(
    message_id: MessageId,
    *,
    place: Place,
) -> None:
    """Try a bounce again now: one that waits, failed, expired or was cancelled."""

    async def work(app: "App", settings: "Settings") -> "OutboxState | None":
        from sendback.store.outbox import Requeue

        now = app.clock.now()
        unit = Requeue(settings.account_id, message_id, now, now + settings.give_up_after)
        return await app.store.write(unit)

    state = place.run(work)
    if state is None:
        raise _unknown(message_id)
    if state in {"delivered", "captured"}:
        raise CommandFailedError(f"{message_id} is {state}: it is not sent again")
    typer.echo(f"{message_id} is due now.")


@app.command("cancel")
@on_store
def cancel(
    message_id: MessageId,
    *,
    place: Place,
) -> None:
    """Take a waiting bounce out of the queue; `retry` puts it back."""

    async def work(app: "App", settings: "Settings") -> "OutboxState | None":
        from sendback.store.outbox import Cancel

        return await app.store.write(Cancel(settings.account_id, message_id))

    state = place.run(work)
    if state is None:
        raise _unknown(message_id)
    if state != "queued":
        raise CommandFailedError(f"{message_id} is {state}: there is nothing to cancel")
    typer.echo(f"{message_id} is cancelled.")


def _unknown(message_id: str) -> CommandFailedError:
    return CommandFailedError(f"there is no bounce {message_id} in the outbox")


def _row(message: "OutboxMessage") -> dict[str, Any]:
    return {
        "message_id": message.message_id,
        "original_message_id": message.original_message_id,
        "created_at": message.created_at,
        "recipient": message.recipient,
        "state": message.state.value,
        "attempts": message.attempts,
        "due_at": message.due_at if message.state == "queued" else None,
        "last_reply": message.last_reply,
    }


def _attempt(attempt: "Attempt") -> dict[str, Any]:
    return {
        "started_at": attempt.started_at,
        "milliseconds": attempt.milliseconds,
        "outcome": attempt.outcome.value,
        "peer": attempt.peer,
        "tls": attempt.tls,
        "reply": attempt.reply,
    }
