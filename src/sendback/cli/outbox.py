"""`sendback outbox`: list bounces and their delivery attempts, retry, hold and cancel them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import usage_error
from sendback.cli.options import Json, Limit, StoreOptions, on_store, with_options
from sendback.cli.output import print_fields, print_rows
from sendback.config.readers import positive_duration

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.service.outbox.control import Change
    from sendback.store.outbox.control import Selection
    from sendback.store.outbox.destinations import Destination
    from sendback.store.outbox.rows import Attempt, OutboxMessage, OutboxState

app = typer.Typer(
    help="List bounces and their delivery attempts; retry, hold, release and cancel them.",
    no_args_is_help=True,
)

MessageId = Annotated[str, typer.Argument(help="The MessageId that SendBounce returned.")]
MessageIds = Annotated[
    list[str] | None, typer.Argument(metavar="[MESSAGE_ID]...", help="Which ones, by MessageId.")
]
Everything = Annotated[
    bool, typer.Option("--all", help="All messages that can be changed, without a filter.")
]
Domain = Annotated[str, typer.Argument(help="A recipient's domain, as `outbox domains` lists it.")]
STATES = ("queued", "held", "delivered", "captured", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class Filter:
    """The options that select messages."""

    domain: str | None
    recipient: str | None
    reply: str | None
    original: str | None
    older_than: str | None
    state: str | None

    def selection(self, app: "App", account_id: str, ids: Sequence[str] = ()) -> "Selection":
        from sendback.mail.address import identity_name
        from sendback.store.outbox.control import Selection
        from sendback.store.outbox.rows import OutboxState

        created_before = None
        if self.older_than:
            created_before = app.clock.now() - positive_duration(self.older_than)
        return Selection(
            account_id=account_id,
            message_ids=tuple(ids),
            domain=identity_name(self.domain or ""),
            recipient=self.recipient or "",
            reply=self.reply or "",
            original_message_id=self.original or "",
            created_before=created_before,
            states=(OutboxState(self.state),) if self.state else (),
        )

    def check(self) -> "Filter":
        if self.state is not None and self.state not in STATES:
            raise usage_error(f"--state is one of {', '.join(STATES)}, not {self.state!r}")
        try:
            positive_duration(self.older_than or "1s")
        except ValueError as error:
            raise usage_error(f"--older-than: {error}") from None
        return self


_FILTER_OPTIONS = {
    "domain": Annotated[str | None, typer.Option(help="To recipients of this domain.")],
    "recipient": Annotated[
        str | None, typer.Option(help="To recipients like this, with * and ?.", metavar="PATTERN")
    ],
    "reply": Annotated[
        str | None, typer.Option(help="Whose last reply contains this.", metavar="TEXT")
    ],
    "original": Annotated[
        str | None, typer.Option(help="For this received message.", metavar="MESSAGE_ID")
    ],
    "older_than": Annotated[
        str | None, typer.Option(help="Written longer ago than this: 30m, 2d.", metavar="DURATION")
    ],
    "state": Annotated[str | None, typer.Option(help=f"One of {', '.join(STATES)}.")],
}


def with_filter(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that select messages, as its argument `message_filter`."""
    return with_options(command, _FILTER_OPTIONS, "message_filter", lambda **o: Filter(**o).check())


@app.command("list")
@on_store
@with_filter
def list_outbox(
    limit: Limit = 50,
    as_json: Json = False,
    *,
    message_filter: Filter,
    options: StoreOptions,
) -> None:
    """List bounces, the newest first; options choose which."""

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        selection = message_filter.selection(app, settings.account_id)
        return [_row(message) for message in await app.outbox.list(selection, limit)]

    rows = options.run(work)
    columns = ("created_at", "message_id", "recipient", "state", "attempts", "last_reply")
    print_rows(rows, columns, as_json=as_json)


@app.command("show")
@on_store
def show_outbox(
    message_id: MessageId,
    raw: Annotated[bool, typer.Option(help="Print the bounce itself, as it is queued.")] = False,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Show a bounce: its state, every attempt to deliver it, and with --raw all of it."""

    async def work(app: "App", settings: "Settings") -> "tuple[OutboxMessage, list[Attempt]]":
        message, attempts = await app.outbox.find(settings.account_id, message_id)
        return message, list(attempts)

    message, attempts = options.run(work)
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
    columns = ("started_at", "outcome", "peer", "tls", "tls_policy", "milliseconds", "reply")
    print_rows(rows, columns, as_json=False)
    typer.echo("The mail itself: add --raw")


@app.command("summary")
@on_store
def summary(as_json: Json = False, *, options: StoreOptions) -> None:
    """Count the bounces in each state."""

    async def work(app: "App", settings: "Settings") -> "Mapping[OutboxState, int]":
        return await app.outbox.count(settings.account_id)

    counts = {str(state): number for state, number in options.run(work).items()}
    print_fields({state: counts.get(state, 0) for state in STATES}, as_json=as_json)


@app.command("retry")
@on_store
@with_filter
def retry(
    message_ids: MessageIds = None,
    everything: Everything = False,
    *,
    message_filter: Filter,
    options: StoreOptions,
) -> None:
    """Deliver bounces again now: those named, in any state but delivered, or the queued ones.

    With --state also held, failed, expired or cancelled ones. Their lifetime begins anew, and
    blocked domains are tried at once.
    """
    from sendback.service.outbox.control import RETRY, RETRY_WAITING

    change = RETRY if message_ids or message_filter.state else RETRY_WAITING
    _change(options, change, "due now", message_filter, message_ids or [], everything=everything)


@app.command("hold")
@on_store
@with_filter
def hold(
    message_ids: MessageIds = None,
    everything: Everything = False,
    *,
    message_filter: Filter,
    options: StoreOptions,
) -> None:
    """Hold queued bounces until `release`; they do not expire meanwhile."""
    from sendback.service.outbox.control import HOLD

    _change(options, HOLD, "held", message_filter, message_ids or [], everything=everything)


@app.command("release")
@on_store
@with_filter
def release(
    message_ids: MessageIds = None,
    everything: Everything = False,
    *,
    message_filter: Filter,
    options: StoreOptions,
) -> None:
    """Queue held bounces again."""
    from sendback.service.outbox.control import RELEASE

    _change(options, RELEASE, "due now", message_filter, message_ids or [], everything=everything)


@app.command("cancel")
@on_store
@with_filter
def cancel(
    message_ids: MessageIds = None,
    everything: Everything = False,
    *,
    message_filter: Filter,
    options: StoreOptions,
) -> None:
    """Remove queued or held bounces from the queue; `retry` queues them again."""
    from sendback.service.outbox.control import CANCEL

    _change(options, CANCEL, "cancelled", message_filter, message_ids or [], everything=everything)


@app.command("domains")
@on_store
def domains(as_json: Json = False, *, options: StoreOptions) -> None:
    """List the domains that mail waits for, that do not answer, or that are paused."""

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:  # noqa: ARG001
        return [_domain_row(found) for found in await app.outbox.domains()]

    rows = options.run(work)
    columns = ("domain", "waiting", "state", "failures", "next_try", "reason")
    print_rows(rows, columns, as_json=as_json)


@app.command("pause")
@on_store
def pause(domain: Domain, *, options: StoreOptions) -> None:
    """Deliver nothing to a domain until `resume`, also what is queued later."""
    _pause(options, domain, paused=True)
    typer.echo(f"Nothing is delivered to {domain} until `sendback outbox resume {domain}`.")


@app.command("resume")
@on_store
def resume(domain: Domain, *, options: StoreOptions) -> None:
    """Deliver to a domain again, at once: one that was paused, or that did not answer."""
    _pause(options, domain, paused=False)
    typer.echo(f"Mail for {domain} is due now.")


def _change(
    options: StoreOptions,
    change: "Change",
    done: str,
    message_filter: Filter,
    ids: Sequence[str],
    *,
    everything: bool,
) -> None:
    """Change the state of messages and print how many; `done` describes them afterwards."""

    async def work(app: "App", settings: "Settings") -> tuple[int, list[str]]:
        selection = message_filter.selection(app, settings.account_id, ids)
        if selection.is_everything and not everything:
            raise usage_error("name messages, or a filter such as --domain, or --all")
        count = await app.outbox.change(
            change, selection, lambda total: typer.echo(f"{total} so far", err=True)
        )
        return count, await _paused(app) if change.state.value == "queued" else []

    count, paused = options.run(work)
    if len(ids) == 1 and count:
        typer.echo(f"{ids[0]} is {done}.")
    elif len(ids) == 1:
        typer.echo(f"{ids[0]} is unchanged: it is due already, or is being delivered now.")
    else:
        typer.echo(f"{count} {'message is' if count == 1 else 'messages are'} {done}.")
    if paused:
        typer.echo(f"Nothing goes to {', '.join(paused)} before `sendback outbox resume`.")


async def _paused(app: "App") -> list[str]:
    """Return the paused domains that mail waits for."""
    found = await app.outbox.domains()
    return [entry.domain for entry in found if entry.is_paused and entry.waiting]


def _pause(options: StoreOptions, domain: str, *, paused: bool) -> None:
    async def work(app: "App", settings: "Settings") -> None:  # noqa: ARG001
        from sendback.mail.address import AddressError, canonical_domain

        try:
            name = canonical_domain(domain)
        except AddressError as error:
            raise usage_error(str(error)) from None
        await app.outbox.set_paused(name, paused=paused)

    options.run(work)


def _row(message: "OutboxMessage") -> dict[str, Any]:
    return {
        "message_id": message.message_id,
        "original_message_id": message.original_message_id,
        "created_at": message.created_at,
        "sender": message.sender,
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
        "tls_policy": attempt.tls_policy,
        "reply": attempt.reply,
    }


def _domain_row(found: "Destination") -> dict[str, Any]:
    state = "paused" if found.is_paused else "failing" if found.failures else "open"
    return {
        "domain": found.domain,
        "waiting": found.waiting,
        "state": state,
        "failures": found.failures,
        "next_try": found.blocked_until if state == "failing" else None,
        "since": found.changed_at,
        "reason": found.reason,
    }
