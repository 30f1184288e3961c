"""`sendback outbox`: list bounces and their delivery attempts, retry, hold and cancel them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import Json, Limit, StoreOptions, on_store, with_options
from sendback.cli.output import print_changed, print_fields, print_progress, print_rows
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

MessageId = Annotated[
    str, typer.Argument(help="The MessageId that SendBounce returned, or a unique prefix of it.")
]
MessageIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MESSAGE_ID]...", help="The MessageIds of bounces, or prefixes."),
]
Everything = Annotated[
    bool, typer.Option("--all", help="All bounces that can be changed; needs no filter.")
]
Domain = Annotated[str, typer.Argument(help="A recipient's domain, as `outbox domains` lists it.")]
STATES = ("queued", "held", "delivered", "captured", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class Filter:
    """The values of the options that select bounces."""

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
        """Return the filter itself. Raise `BadParameter` for an invalid value."""
        if self.state is not None and self.state not in STATES:
            raise usage_error(f"--state must be one of {', '.join(STATES)}, not {self.state!r}")
        try:
            positive_duration(self.older_than or "1s")
        except ValueError as error:
            raise usage_error(f"--older-than: {error}") from None
        return self


_FILTER_OPTIONS = {
    "domain": Annotated[str | None, typer.Option(help="Only to recipients of this domain.")],
    "recipient": Annotated[
        str | None,
        typer.Option(help="Only to recipients that match, with * and ?.", metavar="PATTERN"),
    ],
    "reply": Annotated[
        str | None, typer.Option(help="Only if the last reply contains this.", metavar="TEXT")
    ],
    "original": Annotated[
        str | None, typer.Option(help="Only for this received message.", metavar="MESSAGE_ID")
    ],
    "older_than": Annotated[
        str | None,
        typer.Option(help="Only if created longer ago: 30m, 2d.", metavar="DURATION"),
    ],
    "state": Annotated[
        str | None, typer.Option(help=f"Only in this state: one of {', '.join(STATES)}.")
    ],
}


def with_filter(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Filter`, as its argument `message_filter`."""
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
    """List bounces, the newest first; filter them with options."""

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        from sendback.inspection.shown import bounce_row

        selection = message_filter.selection(app, settings.account_id)
        return [bounce_row(message) for message in await app.outbox.list(selection, limit)]

    rows = options.run(work)
    columns = ("created_at", "message_id", "recipient", "state", "attempts", "last_reply")
    print_rows(rows, columns, as_json=as_json, drop=("attempts", "last_reply"))


@app.command("show")
@on_store
def show_outbox(
    message_id: MessageId,
    raw: Annotated[bool, typer.Option(help="Print the whole bounce instead.")] = False,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Show a bounce: its state and every delivery attempt.

    With --raw, print the whole bounce instead.
    """

    async def work(app: "App", settings: "Settings") -> "tuple[OutboxMessage, list[Attempt]]":
        message, attempts = await app.outbox.find(settings.account_id, message_id)
        return message, list(attempts)

    message, attempts = options.run(work)
    if raw:
        typer.echo(message.content, nl=False)
        return
    from sendback.inspection.shown import attempt_row, bounce_row

    rows = [attempt_row(attempt) for attempt in attempts]
    fields = bounce_row(message)
    if as_json:
        content = message.content.decode("utf-8", "replace")
        print_fields({**fields, "tries": rows, "content": content}, as_json=True)
        return
    print_fields(fields, as_json=False)
    typer.echo()
    columns = ("started_at", "outcome", "peer", "tls", "tls_policy", "milliseconds", "reply")
    print_rows(rows, columns, as_json=False, whole=True)
    typer.echo("To print the whole bounce, add --raw.")


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
    """Deliver bounces again, now.

    A named bounce may be in any state but delivered or captured. A filter selects queued bounces,
    and others only with --state. The time until they expire begins anew, and domains that did not
    answer are tried at once.
    """
    from sendback.service.outbox.control import RETRY, RETRY_WAITING

    possible = [state.value for state in RETRY.origin]
    if message_filter.state is not None and message_filter.state not in possible:
        raise usage_error(
            f"{message_filter.state} messages are not sent again: --state may be "
            f"{', '.join(possible[:-1])} or {possible[-1]}"
        )
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
    """Hold queued bounces until `release`; held bounces do not expire."""
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
    """Release held bounces: deliver them now."""
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
    """Cancel queued or held bounces; `retry` queues them again."""
    from sendback.service.outbox.control import CANCEL

    _change(options, CANCEL, "cancelled", message_filter, message_ids or [], everything=everything)


@app.command("domains")
@on_store
def domains(as_json: Json = False, *, options: StoreOptions) -> None:
    """List domains with waiting bounces, and paused or failing ones."""

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:  # noqa: ARG001
        return [_domain_row(found) for found in await app.outbox.domains()]

    rows = options.run(work)
    columns = ("domain", "waiting", "state", "failures", "next_try", "reason")
    print_rows(rows, columns, as_json=as_json, drop=("failures", "reason"))


@app.command("pause")
@on_store
def pause(domain: Domain, *, options: StoreOptions) -> None:
    """Pause delivery to a domain until `resume`, also of bounces queued later."""
    _pause(options, domain, paused=True)
    typer.echo(f"Nothing is delivered to {domain} until `sendback outbox resume {domain}`.")


@app.command("resume")
@on_store
def resume(domain: Domain, *, options: StoreOptions) -> None:
    """Resume delivery to a paused or failing domain at once."""
    if not _pause(options, domain, paused=False):
        raise CommandFailedError(
            f"no mail waits for {domain}, and it is not paused: see `sendback outbox domains`"
        )
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
    """Change the state of bounces and print their number; `done` names the new state."""

    async def work(app: "App", settings: "Settings") -> tuple[int, list[str]]:
        selection = message_filter.selection(app, settings.account_id, ids)
        if selection.is_everything and not everything:
            raise usage_error("give MessageIds, a filter such as --domain, or --all")
        count = await app.outbox.change(change, selection, print_progress)
        return count, await _paused(app) if change.state.value == "queued" else []

    count, paused = options.run(work)
    print_changed(ids, count, done, "it is due already, or is being delivered now")
    if paused:
        typer.echo(f"Paused until `sendback outbox resume`: {', '.join(paused)}.")


async def _paused(app: "App") -> list[str]:
    """Return the paused domains that have waiting bounces."""
    found = await app.outbox.domains()
    return [entry.domain for entry in found if entry.is_paused and entry.waiting]


def _pause(options: StoreOptions, domain: str, *, paused: bool) -> bool:
    """Pause or resume a domain; return whether it was known."""

    async def work(app: "App", settings: "Settings") -> bool:  # noqa: ARG001
        from sendback.mail.address import AddressError, canonical_domain

        try:
            name = canonical_domain(domain)
        except AddressError as error:
            raise usage_error(str(error)) from None
        return await app.outbox.set_paused(name, paused=paused)

    return options.run(work)


def _domain_row(found: "Destination") -> dict[str, Any]:
    state = "paused" if found.is_paused else "failing" if found.failures else "open"
    return {
        "domain": found.domain,
        "waiting": found.waiting,
        "state": state,
        "failures": found.failures,
        "next_try": found.blocked_until if state == "failing" else None,
        "since": found.changed_at,
        "reason": found.reason or None,
    }
