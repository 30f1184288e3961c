"""`sendback outbox`: the bounces, what became of them, and how their delivery is steered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import Json, Limit, Place, on_store, with_options
from sendback.cli.output import print_fields, print_rows
from sendback.config.readers import positive_duration

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.store.outbox.control import Selection
    from sendback.store.outbox.destinations import Destination
    from sendback.store.outbox.rows import Attempt, OutboxMessage, OutboxState

app = typer.Typer(
    help="Bounces, what became of them, and how their delivery is steered.", no_args_is_help=True
)

MessageId = Annotated[str, typer.Argument(help="The MessageId that SendBounce answered.")]
MessageIds = Annotated[
    list[str] | None, typer.Argument(metavar="[MESSAGE_ID]...", help="Which ones, by MessageId.")
]
Everything = Annotated[bool, typer.Option("--all", help="All that can be; without a filter.")]
Domain = Annotated[str, typer.Argument(help="A recipient's domain, as `outbox domains` lists it.")]
STATES = ("queued", "held", "delivered", "captured", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class Filter:
    """What the options that choose messages say."""

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


def choosing(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that choose messages, as its argument `chosen`."""
    return with_options(command, _FILTER_OPTIONS, "chosen", lambda **o: Filter(**o).check())


@app.command("list")
@on_store
@choosing
def list_outbox(
    limit: Limit = 50,
    as_json: Json = False,
    *,
    chosen: Filter,
    place: Place,
) -> None:
    """List bounces, the newest first; options choose which."""

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        from sendback.store.outbox.control import ListOutbox

        selection = chosen.selection(app, settings.account_id)
        return [_row(message) for message in await app.store.read(ListOutbox(selection, limit))]

    rows = place.run(work)
    columns = ("created_at", "message_id", "recipient", "state", "attempts", "last_reply")
    print_rows(rows, columns, as_json=as_json)


@app.command("show")
@on_store
def show_outbox(
    message_id: MessageId,
    raw: Annotated[bool, typer.Option(help="Print the bounce itself, as it is queued.")] = False,
    as_json: Json = False,
    *,
    place: Place,
) -> None:
    """Show a bounce: its state, every attempt to deliver it, and with --raw all of it."""

    async def work(app: "App", settings: "Settings") -> "tuple[OutboxMessage, list[Attempt]]":
        from sendback.store.outbox.control import ShowOutbox

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
    columns = ("started_at", "outcome", "peer", "tls", "tls_policy", "milliseconds", "reply")
    print_rows(rows, columns, as_json=False)
    typer.echo("The mail itself: add --raw")


@app.command("summary")
@on_store
def summary(as_json: Json = False, *, place: Place) -> None:
    """Count the bounces in each state."""

    async def work(app: "App", settings: "Settings") -> "dict[OutboxState, int]":
        from sendback.store.outbox.control import CountStates

        return await app.store.read(CountStates(settings.account_id))

    counts = {str(state): number for state, number in place.run(work).items()}
    print_fields({state: counts.get(state, 0) for state in STATES}, as_json=as_json)


@app.command("retry")
@on_store
@choosing
def retry(
    message_ids: MessageIds = None, everything: Everything = False, *, chosen: Filter, place: Place
) -> None:
    """Try bounces again now: those named, whatever became of them, or those that wait.

    Of the others with --state: held, failed, expired, cancelled. They get the whole time again
    before they are given up, and their domains are tried at once.
    """
    origin: tuple[str, ...] = ("queued", "held", "failed", "expired", "cancelled")
    if not message_ids and chosen.state is None:
        origin = ("queued",)  # what once failed or was cancelled is not sent by a wide filter
    steering = _Steering("queued", origin, "due now", "it is not sent again")
    steering.run(place, chosen, message_ids or [], everything=everything)


@app.command("hold")
@on_store
@choosing
def hold(
    message_ids: MessageIds = None, everything: Everything = False, *, chosen: Filter, place: Place
) -> None:
    """Keep waiting bounces back until `release`; they do not expire meanwhile."""
    steering = _Steering("held", ("queued",), "held", "only what waits can be held")
    steering.run(place, chosen, message_ids or [], everything=everything)


@app.command("release")
@on_store
@choosing
def release(
    message_ids: MessageIds = None, everything: Everything = False, *, chosen: Filter, place: Place
) -> None:
    """Let bounces go that were held."""
    steering = _Steering("queued", ("held",), "due now", "it is not held")
    steering.run(place, chosen, message_ids or [], everything=everything)


@app.command("cancel")
@on_store
@choosing
def cancel(
    message_ids: MessageIds = None, everything: Everything = False, *, chosen: Filter, place: Place
) -> None:
    """Take waiting or held bounces out of the queue; `retry` puts them back."""
    steering = _Steering("cancelled", ("queued", "held"), "cancelled", "there is nothing to cancel")
    steering.run(place, chosen, message_ids or [], everything=everything)


@app.command("domains")
@on_store
def domains(as_json: Json = False, *, place: Place) -> None:
    """List the domains that mail waits for, that do not answer, or that are paused."""

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:  # noqa: ARG001
        from sendback.store.outbox.destinations import ListDestinations

        return [_domain_row(found) for found in await app.store.read(ListDestinations())]

    rows = place.run(work)
    columns = ("domain", "waiting", "state", "failures", "next_try", "reason")
    print_rows(rows, columns, as_json=as_json)


@app.command("pause")
@on_store
def pause(domain: Domain, *, place: Place) -> None:
    """Deliver nothing to a domain until `resume`, also what is queued later."""
    _pause(place, domain, paused=True)
    typer.echo(f"Nothing is delivered to {domain} until `sendback outbox resume {domain}`.")


@app.command("resume")
@on_store
def resume(domain: Domain, *, place: Place) -> None:
    """Deliver to a domain again, at once: one that was paused, or that did not answer."""
    _pause(place, domain, paused=False)
    typer.echo(f"Mail for {domain} is due now.")


@dataclass(frozen=True, slots=True)
class _Steering:
    """A change of state: to which, from which, how it is told, and what about other states."""

    state: str
    origin: tuple[str, ...]
    done: str
    otherwise: str

    def run(self, place: Place, chosen: Filter, ids: Sequence[str], *, everything: bool) -> None:
        async def work(app: "App", settings: "Settings") -> tuple[int, list[str]]:
            selection = chosen.selection(app, settings.account_id, ids)
            if selection.is_everything and not everything:
                raise usage_error("name messages, or a filter such as --domain, or --all")
            if len(ids) == 1:
                await self._check(app, settings, ids[0])
            count = await self._steer(app, settings, selection)
            return count, await _paused(app) if self.state == "queued" else []

        count, paused = place.run(work)
        self._tell(ids, count)
        if paused:
            typer.echo(f"Nothing goes to {', '.join(paused)} before `sendback outbox resume`.")

    def _tell(self, ids: Sequence[str], count: int) -> None:
        if len(ids) == 1 and count:
            typer.echo(f"{ids[0]} is {self.done}.")
        elif len(ids) == 1:
            typer.echo(f"{ids[0]} is left as it is: it is due, or being tried at this moment.")
        else:
            typer.echo(f"{count} {'message is' if count == 1 else 'messages are'} {self.done}.")

    async def _check(self, app: "App", settings: "Settings", message_id: str) -> None:
        from sendback.store.outbox.control import ShowOutbox

        found = await app.store.read(ShowOutbox(settings.account_id, message_id))
        if found is None:
            raise _unknown(message_id)
        state = found[0].state.value
        if state not in self.origin:
            raise CommandFailedError(f"{message_id} is {state}: {self.otherwise}")

    async def _steer(self, app: "App", settings: "Settings", selection: "Selection") -> int:
        from sendback.store.outbox.control import ChooseOutbox, Steer
        from sendback.store.outbox.rows import OutboxState

        now = app.clock.now()
        expires_at = now + settings.give_up_after if self.state == "queued" else None
        origin = tuple(map(OutboxState, self.origin))
        total, after = 0, ""
        while chosen := await app.store.read(ChooseOutbox(selection, origin, after)):
            if after:
                typer.echo(f"{total} so far", err=True)
            after = chosen[-1]
            unit = Steer(tuple(chosen), origin, OutboxState(self.state), now, expires_at)
            total += await app.store.write(unit)
        return total


async def _paused(app: "App") -> list[str]:
    """The domains that the operator has paused and that mail waits for."""
    from sendback.store.outbox.destinations import ListDestinations

    found = await app.store.read(ListDestinations())
    return [entry.domain for entry in found if entry.is_paused and entry.waiting]


def _pause(place: Place, domain: str, *, paused: bool) -> None:
    async def work(app: "App", settings: "Settings") -> None:  # noqa: ARG001
        from sendback.mail.address import AddressError, canonical_domain
        from sendback.store.outbox.destinations import PauseDestination

        try:
            name = canonical_domain(domain)
        except AddressError as error:
            raise usage_error(str(error)) from None
        await app.store.write(PauseDestination(name, paused, app.clock.now()))

    place.run(work)


def _unknown(message_id: str) -> CommandFailedError:
    return CommandFailedError(f"there is no bounce {message_id} in the outbox")


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
