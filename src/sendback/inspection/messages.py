"""`/_sendback/messages`: list, show, delete and inject received messages."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

from starlette.responses import Response

from sendback.inspection.answers import answer, empty, raw_message
from sendback.inspection.calls import Call
from sendback.inspection.errors import ApiError, bad_parameter, not_found
from sendback.inspection.services import InspectionServices
from sendback.inspection.shown import message_row, subject_of, whole_message
from sendback.mail.address import address_key
from sendback.service.queues.control import AmbiguousIdError, WrongStateError
from sendback.service.receiving.injection import InjectedMail, InjectionReply, InjectionResult
from sendback.service.rules.content import ContentGoneError
from sendback.service.rules.control import ShownMessage
from sendback.store.engine.errors import NotFoundError
from sendback.store.messages.messages import ReceivedMessage
from sendback.store.rules.processing import ProcessingState

_STATES = [state.value for state in ProcessingState]
_MAX_RECIPIENTS = 1000
_MAX_NAME = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VERDICT = re.compile(r"[A-Za-z_]{1,20}")
_MEMBERS: Mapping[str, type | tuple[type, ...]] = {
    "from": (str, type(None)),
    "to": (list, str),
    "raw": str,
    "raw_base64": str,
    "subject": str,
    "text": str,
    "client_ip": str,
    "helo": str,
    "verdicts": dict,
}


async def list_messages(call: Call, services: InspectionServices) -> Response:
    """List received messages in the order of receipt, behind `after`."""
    account_id, limit = await services.account(call), call.limit()
    state = call.text("state")
    if state is not None and state not in _STATES:
        raise bad_parameter("state", f"it must be one of {', '.join(_STATES)}")

    async def read() -> Sequence[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        scan = services.mail.messages(account_id, call.text("after") or "")
        async with aclosing(scan):  # type: ignore[type-var]
            async for message, processing in scan:
                if state in {None, processing} and _matches(message, call):
                    found.append({**message_row(message), "processing": processing})
                if len(found) == limit:
                    break
        return found

    disconnected = call.request.is_disconnected
    found = await services.waiting.until_any(read, call.wait_seconds(), disconnected)
    following = found[-1]["message_id"] if len(found) == limit else None
    return answer({"messages": found, "next": following})


def _matches(message: ReceivedMessage, call: Call) -> bool:
    envelope = message.envelope
    sender, recipient, subject = (call.text(n) for n in ("sender", "recipient", "subject"))
    if sender is not None and path_key(sender) != path_key(str(envelope.reverse_path)):
        return False
    if recipient is not None and path_key(recipient) not in {
        entry.address.key for entry in envelope.recipients
    }:
        return False
    return subject is None or subject.lower() in (subject_of(message.header) or "").lower()


def path_key(text: str) -> str:
    """Return the canonical key of an address, or the text itself; `<>` is the null one."""
    return "" if text == "<>" else address_key(text)


async def show_message(call: Call, services: InspectionServices) -> Response:
    """Show a message with its envelope, header and rule steps."""
    shown = await _find(call, services)
    header = shown.message.header.decode("utf-8", "replace")
    return answer({**whole_message(shown), "header": header})


async def raw(call: Call, services: InspectionServices) -> Response:
    """Return a message as it was received."""
    shown = await _find(call, services)
    message_id = shown.message.message_id
    if shown.content is None:
        text = f"the content of {message_id} is not kept any more"
        raise ApiError(410, "ContentExpired", text)
    try:
        return await raw_message(shown.content, message_id)
    except ContentGoneError as error:
        raise ApiError(410, "ContentGone", str(error)) from None


async def _find(call: Call, services: InspectionServices) -> ShownMessage:
    try:
        return await services.messages.find(await services.account(call), call.path["id"])
    except NotFoundError as error:
        raise not_found(str(error)) from None
    except AmbiguousIdError as error:
        raise ApiError(409, "AmbiguousId", str(error)) from None


async def delete_message(call: Call, services: InspectionServices) -> Response:
    """Delete a message with the record of its steps; its bounces stay."""
    try:
        await services.mail.delete_message(await services.account(call), call.path["id"])
    except NotFoundError as error:
        raise not_found(str(error)) from None
    except WrongStateError as error:
        raise ApiError(409, "InProgress", str(error)) from None
    return empty()


async def delete_messages(call: Call, services: InspectionServices) -> Response:
    """Delete all messages whose rules are finished."""
    deleted, kept = await services.mail.delete_messages(await services.account(call))
    return answer({"deleted": deleted, "kept": kept})


async def inject(call: Call, services: InspectionServices) -> Response:
    """Receive a message as by SMTP."""
    mail = read_mail(await call.body(_MEMBERS))
    result = await services.injector().inject(mail)
    shown = _result(result)
    return answer(shown, 201 if result.message_id else 422)


def read_mail(given: Mapping[str, Any]) -> InjectedMail:
    """Return the mail that a body describes. Raise `ApiError`."""
    sender = _line(given, "from", "") if given.get("from") is not None else ""
    if not given.get("to"):
        raise bad_parameter("to", "it must name at least one recipient")
    to = given["to"]
    recipients = tuple(_path("to", item) for item in (to if isinstance(to, list) else [to]))
    if len(recipients) > _MAX_RECIPIENTS:
        raise bad_parameter("to", f"at most {_MAX_RECIPIENTS} recipients")
    content = _content(given, sender, recipients)
    addresses = (sender, *recipients)
    parameters = []
    if not content.isascii():
        parameters.append("BODY=8BITMIME")
    if not all(address.isascii() for address in addresses):
        parameters.append("SMTPUTF8")
    return InjectedMail(
        content=content,
        sender=_path("from", sender) if sender else "",
        recipients=recipients,
        client_ip=_client_ip(given),
        helo=_line(given, "helo", "localhost"),
        parameters=(*parameters, *_verdicts(given.get("verdicts") or {})),
    )


def _content(given: Mapping[str, Any], sender: str, recipients: Sequence[str]) -> bytes:
    """Return the message: as octets, as text, or composed."""
    composed = {"subject", "text"} & given.keys()
    forms = [name for name in ("raw", "raw_base64") if name in given]
    if len(forms) + bool(composed) != 1:
        raise bad_parameter("raw", "give one of raw, raw_base64, or subject and text")
    if composed:
        return _compose(given, sender, recipients)
    if forms == ["raw_base64"]:
        try:
            return base64.b64decode(given["raw_base64"], validate=True)
        except (binascii.Error, ValueError):
            raise bad_parameter("raw_base64", "it is not base64") from None
    try:
        octets: bytes = given["raw"].encode()
    except UnicodeEncodeError:
        raise bad_parameter("raw", "it has characters that are not Unicode") from None
    # A text without any CR is a text file; otherwise the line ends are the sender's.
    return octets if b"\r" in octets else octets.replace(b"\n", b"\r\n")


def _compose(given: Mapping[str, Any], sender: str, recipients: Sequence[str]) -> bytes:
    message = EmailMessage()
    try:
        message["From"] = sender or "mailer-daemon@localhost"
        message["To"] = ", ".join(recipients[:50])
        message["Subject"] = _line(given, "subject", "", most=998)
        message.set_content(given.get("text", ""))
        utf8 = not f"{sender}{''.join(recipients)}".isascii()
        policy = SMTP.clone(utf8=utf8)
        return bytes(message.as_bytes(policy=policy))
    except (ValueError, IndexError, AttributeError) as error:
        raise bad_parameter("subject", f"no mail can be composed of this: {error}") from None


def _line(given: Mapping[str, Any], name: str, default: str, most: int = _MAX_NAME * 4) -> str:
    """Return a member that is put into a line. Raise `ApiError`."""
    value = given.get(name, default)
    if not isinstance(value, str) or len(value) > most or _CONTROL.search(value):
        raise bad_parameter(name, f"it must be one line of at most {most} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad_parameter(name, "it has characters that are not Unicode") from None
    return value


def _path(name: str, value: Any) -> str:
    """Return an address that is put between angle brackets. Raise `ApiError`."""
    text = _line({name: value}, name, "")
    if "<" in text or ">" in text or not text:
        raise bad_parameter(name, "it must be an address without angle brackets")
    return text


def _client_ip(given: Mapping[str, Any]) -> str:
    try:
        return str(ipaddress.ip_address(given.get("client_ip", "127.0.0.1")))
    except ValueError:
        raise bad_parameter("client_ip", "it is not an IP address") from None


def _verdicts(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parameter of MAIL that sets verdicts (setting `test_verdicts`)."""
    if not given:
        return ()
    for name, value in given.items():
        if not (_VERDICT.fullmatch(name) and isinstance(value, str) and _VERDICT.fullmatch(value)):
            raise bad_parameter("verdicts", "it must be names and values such as spf, FAIL")
    pairs = (f"{name.replace('_', '-')}:{value}" for name, value in given.items())
    return (f"XSENDBACK-VERDICTS={','.join(pairs)}",)


def _result(result: InjectionResult) -> dict[str, Any]:
    recipients = {name: _reply(reply) for name, reply in result.recipients.items()}
    shown = {**_reply(result.reply), "recipients": recipients}
    return {"message_id": result.message_id, **shown} if result.message_id else shown


def _reply(reply: InjectionReply) -> dict[str, Any]:
    return {"reply": reply.text, "code": reply.code, "enhanced_code": reply.status or None}
