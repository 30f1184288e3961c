"""`sendback messages`: list received messages; retry or drop their processing."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import usage_error
from sendback.cli.options import Json, Limit, StoreOptions, on_store
from sendback.cli.output import (
    print_changed,
    print_fields,
    print_progress,
    print_rows,
    printable,
)

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.service.rules.control import ShownMessage

app = typer.Typer(
    help="List received messages and what their rules did; retry or drop processing.",
    no_args_is_help=True,
)

STATES = ("queued", "held", "done", "dropped")
State = Annotated[str | None, typer.Option("--state", help=f"One of {', '.join(STATES)}.")]
MessageIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MESSAGE_ID]...", help="The IDs of messages, or unique prefixes."),
]


@app.command("list")
@on_store
def list_messages(
    state: State = None,
    limit: Limit = 50,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """List received messages, the newest first, with the state of their processing.

    A `held` message is not processed: it crashed its worker, or its rules cannot be carried out;
    `messages show` prints the reason. Without an active rule set there is no state.
    """
    _check_state(state, STATES)

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        from sendback.inspection.shown import message_row
        from sendback.store.rules.processing import ProcessingState

        wanted = ProcessingState(state) if state else None
        found = await app.messages.list(settings.account_id, limit, wanted)
        return [{**message_row(message), "processing": processing} for message, processing in found]

    rows = options.run(work)
    if not as_json:
        rows = [{**row, "from": row["from"] or "<>"} for row in rows]
    columns = ("received_at", "message_id", "from", "to", "subject", "size", "processing")
    print_rows(rows, columns, as_json=as_json, drop=("size", "subject", "processing"))


@app.command("show")
@on_store
def show_message(
    message_id: Annotated[
        str, typer.Argument(help="The ID, from the 250 reply, or a unique prefix of it.")
    ],
    raw: Annotated[bool, typer.Option(help="Print the message itself, as received.")] = False,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Show a received message.

    Prints its envelope, the steps of its processing, and its header; with --raw, the
    whole message instead.
    """

    async def work(app: "App", settings: "Settings") -> "ShownMessage":
        shown = await app.messages.find(settings.account_id, message_id)
        if raw and shown.content is not None:
            async for piece in shown.content.stream():
                typer.echo(piece, nl=False)
        return shown

    shown = options.run(work)
    message = shown.message
    if raw:
        return
    from sendback.inspection.shown import whole_message

    fields = whole_message(shown)
    if as_json:
        fields["header"] = message.header.decode("utf-8", "replace")
        print_fields(fields, as_json=True)
        return
    steps = fields.pop("steps", [])
    print_fields({**fields, "from": fields["from"] or "<>"}, as_json=False)
    if steps:
        typer.echo()
        print_rows(steps, _STEP_COLUMNS, as_json=False, whole=True)
    typer.echo("\n" + _shown(message.header))


@app.command("retry")
@on_store
def retry(
    message_ids: MessageIds = None,
    everything: Annotated[bool, typer.Option("--all", help="All held messages.")] = False,
    *,
    options: StoreOptions,
) -> None:
    """Process held messages again: those named, or all. Completed steps are not repeated."""
    _change(
        options,
        lambda app, account_id, ids: app.messages.retry(account_id, ids, print_progress),
        "due now",
        message_ids or [],
        everything=everything,
    )


@app.command("drop")
@on_store
def drop(
    message_ids: MessageIds = None,
    everything: Annotated[bool, typer.Option("--all", help="All held or queued messages.")] = False,
    state: Annotated[
        str | None, typer.Option("--state", help="Only held, or only queued messages.")
    ] = None,
    *,
    options: StoreOptions,
) -> None:
    """End the processing of messages. No further step of their rules runs.

    A message that a worker is processing now is unchanged. The messages themselves are kept.
    """
    _check_state(state, ("held", "queued"))
    from sendback.store.rules.processing import ProcessingState

    wanted = ProcessingState(state) if state else None
    _change(
        options,
        lambda app, account_id, ids: app.messages.drop(account_id, ids, wanted, print_progress),
        "dropped",
        message_ids or [],
        everything=everything,
    )


def _change(
    options: StoreOptions,
    change: "Callable[[App, str, Sequence[str]], Awaitable[int]]",
    done: str,
    ids: Sequence[str],
    *,
    everything: bool,
) -> None:
    """Change the state of messages and print their number; `done` names the new state."""
    if not ids and not everything:
        raise usage_error("name the messages by their IDs, or give --all")

    async def work(app: "App", settings: "Settings") -> int:
        return await change(app, settings.account_id, ids)

    count = options.run(work)
    print_changed(ids, count, done, "a worker is processing it now")


def _check_state(state: str | None, allowed: Sequence[str]) -> None:
    if state is not None and state not in allowed:
        raise usage_error(f"--state must be one of {', '.join(allowed)}, not {state!r}")


_STEP_COLUMNS = ("at", "rule", "action", "outcome", "attempts", "milliseconds", "result")


def _shown(header: bytes) -> str:
    lines = header.decode("utf-8", "replace").split("\r\n")
    return "\n".join(printable(line.replace("\t", " ")) for line in lines)
