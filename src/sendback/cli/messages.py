"""`sendback messages`: what was received."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError
from sendback.cli.options import Json, Limit, Place, on_store
from sendback.cli.output import print_fields, print_rows, printable

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config import Settings
    from sendback.store.values import Processing, ReceivedMessage, StepRecord

    _Processed = tuple[Processing, Sequence[StepRecord]] | None
    _Shown = tuple[ReceivedMessage, bytes, _Processed]

app = typer.Typer(help="What was received.", no_args_is_help=True)


@app.command("list")
@on_store
def list_messages(
    limit: Limit = 50,
    as_json: Json = False,
    *,
    place: Place,
) -> None:
    """List received messages, the newest first."""

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        from sendback.store.messages import ListMessages

        found = await app.store.read(ListMessages(settings.account_id, limit))
        return [_row(message) for message in found]

    rows = place.run(work)
    columns = ("received_at", "message_id", "from", "to", "subject", "size")
    print_rows(rows, columns, as_json=as_json)


@app.command("show")
@on_store
def show_message(
    message_id: Annotated[str, typer.Argument(help="The ID in the 250 reply.")],
    raw: Annotated[bool, typer.Option(help="Print the message itself, as received.")] = False,
    as_json: Json = False,
    *,
    place: Place,
) -> None:
    """Show a received message: its envelope, what its rules did, its header; or all of it."""

    async def work(app: "App", settings: "Settings") -> "_Shown":
        from sendback.store.messages import FindBody, FindMessage
        from sendback.store.processing import FindProcessing

        message = await app.store.read(FindMessage(settings.account_id, message_id))
        if message is None:
            raise CommandFailedError(f"no message {message_id} was received here")
        body = await app.store.read(FindBody(settings.account_id, message_id))
        processed = await app.store.read(FindProcessing(settings.account_id, message_id))
        content = b""
        if body is not None:
            content = (app.store.blobs.read(body.blob) if body.blob else body.inline) or b""
        return message, content, processed

    message, body, processed = place.run(work)
    if raw:
        typer.echo(message.header + body, nl=False)
        return
    fields = {**_row(message), **_envelope(message), **_processing(processed)}
    if as_json:
        fields["header"] = message.header.decode("utf-8", "replace")
        print_fields(fields, as_json=True)
        return
    steps = fields.pop("steps", [])
    print_fields(fields, as_json=False)
    if steps:
        typer.echo()
        print_rows(steps, _STEP_COLUMNS, as_json=False)
    typer.echo("\n" + _shown(message.header))


_STEP_COLUMNS = ("at", "rule", "action", "outcome", "attempts", "milliseconds", "result")


def _processing(processed: "_Processed") -> dict[str, Any]:
    """How far the message's rules have come, step by step."""
    if processed is None:
        return {"rule_set": None}
    from sendback.receipt.plan import StepOutcome
    from sendback.receipt.verdicts import verdicts_from_json

    entry, steps = processed
    verdicts = {}
    if entry.verdicts:
        statuses = verdicts_from_json(entry.verdicts).statuses(scanned=True)
        verdicts = {name: verdict.value for name, verdict in statuses.items()}
    return {
        "rule_set": entry.rule_set,
        "processing": entry.state.value,
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
        "from": str(envelope.reverse_path) or "<>",
        "to": [str(recipient.address) for recipient in envelope.recipients],
        "subject": subject[0].decode("utf-8", "replace") if subject else "",
        "size": message.size,
    }


def _envelope(message: "ReceivedMessage") -> dict[str, Any]:
    envelope = message.envelope
    return {
        "client": envelope.client.ip,
        "helo": envelope.client.helo,
        "tls": envelope.client.tls or "no",
        "envid": envelope.envelope_id,
        "ret": envelope.ret,
        "notify": [",".join(sorted(entry.notify)) for entry in envelope.recipients],
        "orcpt": [
            f"{entry.original.address_type};{entry.original.address}" if entry.original else ""
            for entry in envelope.recipients
        ],
    }
