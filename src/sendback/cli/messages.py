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
    verdict_fields,
)

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.service.rules.control import ShownMessage
    from sendback.store.messages.messages import ReceivedMessage

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
        from sendback.store.rules.processing import ProcessingState

        wanted = ProcessingState(state) if state else None
        found = await app.messages.list(settings.account_id, limit, wanted)
        return [{**_row(message), "processing": processing} for message, processing in found]

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
        return await app.messages.find(settings.account_id, message_id)

    shown = options.run(work)
    message = shown.message
    if raw:
        typer.echo(message.header + shown.content, nl=False)
        return
    fields = {**_row(message), **_envelope(message), **_processing(shown)}
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


def _processing(shown: "ShownMessage") -> dict[str, Any]:
    """Return the state of the processing, and its steps in order."""
    entry, steps = shown.processing, shown.steps
    if entry is None:
        return {"rule_set": None}
    from sendback.receipt.plan import StepOutcome
    from sendback.receipt.verdicts import verdicts_from_json

    verdicts = {}
    if entry.verdicts:
        verdicts = verdict_fields(verdicts_from_json(entry.verdicts).statuses(scanned=True))
    return {
        "rule_set": entry.rule_set,
        "processing": entry.state.value,
        "reason": entry.reason or None,
        **verdicts,
        "steps": [
            {
                "at": step.last_at,
                "rule": step.rule,
                "action": step.action,
                "outcome": step.outcome.value,
                "disposition": step.disposition.value,
                "attempts": step.attempts,
                "milliseconds": step.milliseconds,
                "next_at": step.due_at if step.outcome is StepOutcome.RETRY else None,
                "result": step.result,
            }
            for step in steps
        ],
    }


def _shown(header: bytes) -> str:
    lines = header.decode("utf-8", "replace").split("\r\n")
    return "\n".join(printable(line.replace("\t", " ")) for line in lines)


def _row(message: "ReceivedMessage") -> dict[str, Any]:
    from sendback.mail.headers import field_values

    subject = field_values(message.header, "Subject")
    envelope = message.envelope
    return {
        "message_id": message.message_id,
        "received_at": message.received_at,
        "expires_at": message.expires_at,
        "from": str(envelope.reverse_path) or None,
        "to": [str(recipient.address) for recipient in envelope.recipients],
        "subject": subject[0].decode("utf-8", "replace") if subject else None,
        "size": message.size,
    }


def _envelope(message: "ReceivedMessage") -> dict[str, Any]:
    envelope = message.envelope
    return {
        "client": envelope.client.ip,
        "helo": envelope.client.helo,
        "tls": envelope.client.tls,
        "envid": envelope.envelope_id,
        "ret": envelope.ret,
        "notify": [",".join(sorted(entry.notify)) or None for entry in envelope.recipients],
        "orcpt": [
            f"{entry.original.address_type};{entry.original.address}" if entry.original else None
            for entry in envelope.recipients
        ],
    }
