"""The form that bounces a message: everything that SendBounce takes, with a preview."""

import asyncio
import re
from collections.abc import Sequence

from starlette.responses import Response

from sendback.aws.errors import SesError
from sendback.aws.model import operation_model
from sendback.aws.query import decode
from sendback.console.call import Page, PageCall, segment
from sendback.console.forms import Form
from sendback.console.shown_dsn import ShownDsn, shown_dsn
from sendback.console.snippets import Snippets, snippets
from sendback.dsn.reasons import REASONS
from sendback.mail.address import Address, parse_address
from sendback.mail.covering import covering_names
from sendback.service.rules.control import ShownMessage

_LIST = "BouncedRecipientInfoList.member"
_ACTIONS = ("failed", "delayed", "delivered", "relayed", "expanded")
_REPORTING_MTA = "MessageDsn.ReportingMta"
_MAX_SHOWN = 100  # recipients in a form
_MAX_SENDERS = 10  # recipients that may become BounceSender
_MEMBER = re.compile(rf"{re.escape(_LIST)}\.(\d{{1,4}})\.(.+)")


async def show(call: PageCall) -> Response:
    """Show the form, filled so that it can be sent at once."""
    shown = await _message(call)
    return await _page(call, shown, Form(tuple(await _defaults(call, shown))))


async def change(call: PageCall) -> Response:
    """Send the bounce, or show the form again with a preview or another number of fields."""
    shown = await _message(call)
    form = Form(tuple(_edited(call)))
    if call.form.text("do") != "send":
        return await _page(call, shown, form)
    call.permit("sendback:ReadMail")
    try:
        found = await call.ses("SendBounce", _pairs(form))
    except SesError as error:
        return await _page(call, shown, form.with_ses_error(error), error.http_status)
    bounce_id = found["MessageId"]
    to = shown.message.envelope.reverse_path
    note = f"The bounce of {shown.message.message_id} to {to} is queued."
    return call.go(f"/bounces/{segment(bounce_id)}", note=note)


async def preview(call: PageCall) -> Response:
    """Show what the form would send, for htmx."""
    await _message(call)
    form = Form(tuple(_edited(call)))
    dsn, form, texts = await _preview(call, form)
    return call.page("bounce/preview.html", dsn=dsn, form=form, snippets=texts)


async def _message(call: PageCall) -> ShownMessage:
    call.permit("sendback:ReadMail")
    return await call.services.messages.find(call.account_id, call.path["id"])


async def _page(call: PageCall, shown: ShownMessage, form: Form, status: int = 200) -> Response:
    dsn, checked, texts = await _preview(call, form)
    is_first = call.request.method == "GET"
    numbers = _numbers(form)
    return call.page(
        "bounce/form.html",
        status,
        shown=shown,
        form=form if form.errors or is_first else checked,
        dsn=dsn,
        snippets=texts,
        members=[f"{_LIST}.{number}" for number in numbers],
        next_member=f"{_LIST}.{numbers[-1] + 1 if numbers else 1}",
        reasons=[
            ("", "as the fields below say"),
            *((name, f"{name}: {reason.status} {reason.text}") for name, reason in REASONS.items()),
        ],
        actions=[("", ""), *((action, action) for action in _ACTIONS)],
        extensions=_extensions(form),
    )


async def _preview(call: PageCall, form: Form) -> tuple[ShownDsn | None, Form, Snippets | None]:
    """Return the report that the form would send, the form with its error, and the call."""
    viewer, pairs = call.viewer, [("Action", "SendBounce"), *_pairs(form)]
    texts = None
    try:
        given = decode(operation_model("SendBounce"), pairs)
        settings = call.services.settings
        texts = snippets("SendBounce", given, f"http://{call.services.http}", settings.region)
        bounce = await call.services.ses.preview_bounce(viewer.caller, viewer.origin, pairs)
    except SesError as error:
        return None, form.with_ses_error(error), texts
    return await asyncio.to_thread(shown_dsn, bounce.content), form, texts


async def _defaults(call: PageCall, shown: ShownMessage) -> list[tuple[str, str]]:
    message = shown.message
    recipients = [entry.address for entry in message.envelope.recipients[:_MAX_SHOWN]]
    sender = await _sender(call, recipients)
    found = [("OriginalMessageId", message.message_id), ("BounceSender", sender)]
    for number, address in enumerate(recipients, 1):
        found.append((f"{_LIST}.{number}.Recipient", str(address)))
        found.append((f"{_LIST}.{number}.BounceType", "ContentRejected"))
    return found


async def _sender(call: PageCall, recipients: Sequence[Address]) -> str:
    """Return an address that may send the bounce.

    It is mailer-daemon at the first recipient's domain where that is verified, or a parent of it;
    else the first recipient with a verified identity of its own.
    """
    if not recipients:
        return "mailer-daemon@localhost"
    usual = f"mailer-daemon@{recipients[0].domain}"
    senders = [parse_address(usual), *recipients[:_MAX_SENDERS]]
    names = {name for sender in senders for name in covering_names(sender)}
    found = await call.services.identities.find(call.account_id, sorted(names))
    verified = {name for name, identity in found.items() if identity.is_verified}
    for sender in senders:
        if not verified.isdisjoint(covering_names(sender)):
            return str(sender)
    return usual


def _pairs(form: Form) -> list[tuple[str, str]]:
    """Return the parameters of the call: numbers of lists without gaps, dates as SES has them."""
    found = []
    renumbered = {number: at for at, number in enumerate(_numbers(form), 1)}
    for name, value in form.filled():
        match = _MEMBER.fullmatch(name)
        if name == "do" or (match is None and name.startswith(_LIST)):
            continue
        path = f"{_LIST}.{renumbered[int(match[1])]}.{match[2]}" if match else name
        found.append((path, value))
    return [*_without_gaps(found)]


def _without_gaps(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Number the extension fields of each list again, from 1."""
    found, numbers = [], dict[str, dict[str, int]]()
    for name, value in pairs:
        head, mark, rest = name.partition("ExtensionFields.member.")
        if not mark:
            found.append((name, value))
            continue
        number, _, member = rest.partition(".")
        known = numbers.setdefault(head, {})
        at = known.setdefault(number, len(known) + 1)
        found.append((f"{head}{mark}{at}.{member}", value))
    return found


def _edited(call: PageCall) -> list[tuple[str, str]]:
    """Return the fields after the button: a recipient or a field added or taken away."""
    form = call.form
    what, _, where = form.text("do").partition(" ")
    pairs = [pair for pair in form.pairs if pair[0] not in {"do", "csrf", "OriginalMessageId"}]
    pairs.append(("OriginalMessageId", call.path["id"]))
    if what == "drop":
        pairs = [pair for pair in pairs if not pair[0].startswith(f"{where}.")]
    if what == "add":
        is_recipient = _MEMBER.fullmatch(f"{where}.Recipient") is not None and "Fields" not in where
        pairs.append((f"{where}.Recipient" if is_recipient else f"{where}.Name", ""))
        if where.startswith("MessageDsn.") and not form.text(_REPORTING_MTA):
            # SES demands it in a MessageDsn.
            pairs = [pair for pair in pairs if pair[0] != _REPORTING_MTA]
            pairs.append((_REPORTING_MTA, f"dns; {call.services.settings.hostname}"))
    if what == "send":
        pairs.append(("do", "send"))
    return pairs


def _numbers(form: Form) -> list[int]:
    found = {int(match[1]) for name in form.names() if (match := _MEMBER.fullmatch(name))}
    return sorted(found)[:_MAX_SHOWN]


def _extensions(form: Form) -> dict[str, list[str]]:
    """Return the names of the extension fields by what they belong to."""
    found: dict[str, list[str]] = {}
    for name in form.names():
        head, mark, rest = name.partition(".ExtensionFields.member.")
        if mark:
            path = f"{head}{mark}{rest.partition('.')[0]}"
            known = found.setdefault(head, [])
            if path not in known:
                known.append(path)
    return found


PAGES = (
    Page("GET", "/mail/{id}/bounce", show),
    Page("POST", "/mail/{id}/bounce", change),
    Page("POST", "/mail/{id}/bounce/preview", preview),
)
