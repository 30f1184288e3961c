"""`sendback messages`: what was received, what its rules did, and how that is steered."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import Json, Limit, Place, on_store
from sendback.cli.output import print_fields, print_rows, printable

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.store.messages.messages import ReceivedMessage
    from sendback.store.rules.processing import Processing, ProcessingState, StepRecord

    _Processed = tuple[Processing, Sequence[StepRecord]] | None
    _Shown = tuple[ReceivedMessage, bytes, _Processed]

app = typer.Typer(help="What was received, and what its rules did.", no_args_is_help=True)

STATES = ("queued", "held", "done", "dropped")
State = Annotated[str | None, typer.Option("--state", help=f"One of {', '.join(STATES)}.")]
MessageIds = Annotated[
    list[str] | None, typer.Argument(metavar="[MESSAGE_ID]...", help="Which ones, by their IDs.")
]


@app.command("list")
@on_store
def list_messages(
    state: State = None,
    limit: Limit = 50,
    as_json: Json = False,
    *,
    place: Place,
) -> None:
    """List received messages, the newest first, with how far their rules have come.

    `held` ones were set aside, because they broke their worker or their rules cannot be worked on;
    `messages show` prints the reason. Without an active rule set there is no state.
    """
    _check_state(state, STATES)

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        from sendback.store.messages.messages import ListMessages
        from sendback.store.rules.processing import ProcessingState

        wanted = ProcessingState(state) if state else None
        found = await app.store.read(ListMessages(settings.account_id, limit, wanted))
        return [{**_row(message), "processing": how_far} for message, how_far in found]

    rows = place.run(work)
    columns = ("received_at", "message_id", "from", "to", "subject", "size", "processing")
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
        from sendback.store.messages.messages import FindBody, FindMessage
        from sendback.store.rules.processing import FindProcessing

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


@app.command("retry")
@on_store
def retry(
    message_ids: MessageIds = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are held.")] = False,
    *,
    place: Place,
) -> None:
    """Work on held messages again: those named, or all. What was done already is not done twice."""
    from sendback.store.rules.processing import ProcessingState

    async def retry_some(app: "App", account_id: str, chosen: tuple[str, ...]) -> int:
        from sendback.store.rules.processing_control import RetryProcessing

        return await app.store.write(RetryProcessing(account_id, chosen, app.clock.now()))

    states = (ProcessingState.HELD,)
    steering = _Steering(states, retry_some, "due now", "only what is held can be retried")
    steering.run(place, message_ids or [], everything=everything)


@app.command("drop")
@on_store
def drop(
    message_ids: MessageIds = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are held or queued.")] = False,
    state: Annotated[str | None, typer.Option("--state", help="Only held, or queued ones.")] = None,
    *,
    place: Place,
) -> None:
    """End the processing of messages: nothing more of their rules is done, now or later.

    What a worker is working on at this moment is left alone. The messages themselves stay.
    """
    _check_state(state, ("held", "queued"))
    from sendback.store.rules.processing import ProcessingState

    async def drop_some(app: "App", account_id: str, chosen: tuple[str, ...]) -> int:
        from sendback.store.rules.processing_control import DropProcessing

        reason = "dropped by the operator"
        return await app.store.write(DropProcessing(account_id, chosen, app.clock.now(), reason))

    both = (ProcessingState.HELD, ProcessingState.QUEUED)
    states = (ProcessingState(state),) if state else both
    steering = _Steering(states, drop_some, "dropped", "there is nothing to drop")
    steering.run(place, message_ids or [], everything=everything)


@dataclass(frozen=True, slots=True)
class _Steering:
    """A change of state: of messages in which states, what makes it, and what is printed."""

    states: "tuple[ProcessingState, ...]"
    change: "Callable[[App, str, tuple[str, ...]], Awaitable[int]]"
    done: str
    otherwise: str

    def run(self, place: Place, ids: Sequence[str], *, everything: bool) -> None:
        if not ids and not everything:
            raise usage_error("name messages, or --all")

        async def work(app: "App", settings: "Settings") -> int:
            if len(ids) == 1:
                await self._check(app, settings.account_id, ids[0])
            return await self._change(app, settings.account_id, tuple(ids))

        count = place.run(work)
        if len(ids) == 1 and count:
            typer.echo(f"{ids[0]} is {self.done}.")
        elif len(ids) == 1:
            typer.echo(f"{ids[0]} is left as it is: it is being worked on at this moment.")
        else:
            typer.echo(f"{count} {'message is' if count == 1 else 'messages are'} {self.done}.")

    async def _check(self, app: "App", account_id: str, message_id: str) -> None:
        from sendback.store.messages.messages import FindMessage
        from sendback.store.rules.processing import FindProcessing

        if await app.store.read(FindMessage(account_id, message_id)) is None:
            raise CommandFailedError(f"no message {message_id} was received here")
        found = await app.store.read(FindProcessing(account_id, message_id))
        if found is None:
            raise CommandFailedError(f"{message_id} came without an active rule set")
        if found[0].state not in self.states:
            raise CommandFailedError(f"{message_id} is {found[0].state.value}: {self.otherwise}")

    async def _change(self, app: "App", account_id: str, ids: tuple[str, ...]) -> int:
        from sendback.store.rules.processing_control import ChooseProcessing

        total, after = 0, ""
        while True:
            unit = ChooseProcessing(account_id, self.states, ids, after)
            chosen = await app.store.read(unit)
            if not chosen:
                return total
            if after:
                typer.echo(f"{total} so far", err=True)
            after = chosen[-1]
            total += await self.change(app, account_id, tuple(chosen))


def _check_state(state: str | None, allowed: Sequence[str]) -> None:
    if state is not None and state not in allowed:
        raise usage_error(f"--state is one of {', '.join(allowed)}, not {state!r}")


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
        "reason": entry.reason,
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
