"""SES API: SendBounce. Parses the request and calls the service.

Each member is parsed into its type here; an error names the member by its path in the request.
"""

import re
from collections.abc import Callable, Mapping
from email.utils import formataddr
from typing import Any, TypeVar

from sendback.api.services import Request, Services
from sendback.aws.arn import IdentityArn, parse_identity_arn
from sendback.aws.errors import invalid_value
from sendback.dsn.errors import DsnError
from sendback.dsn.model import Action, ExtensionField, MtaName, RecipientFields
from sendback.dsn.reasons import REASONS
from sendback.mail.address import Address, AddressError, Mailbox, parse_address, parse_mailbox
from sendback.service.bouncing.requests import BouncedRecipient, BounceRequest

_HEAVY_LIST = 200  # recipients: about 5 ms to parse

T = TypeVar("T")
Input = Mapping[str, Any]

_TYPED = re.compile(r"[A-Za-z0-9-]+\s*;")
_REPLY = re.compile(r"[245]\d\d(?:[ -]|$)")


async def send_bounce(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: SendBounce."""
    recipients = request.input["BouncedRecipientInfoList"]
    parsed = await services.heavy.run(
        lambda: parse_request(request.input), heavy=len(recipients) > _HEAVY_LIST
    )
    message_id = await services.bouncing.send_bounce(request.access, parsed, request.call)
    return {"MessageId": message_id}


def parse_request(given: Input) -> BounceRequest:
    """Return the parsed request. Raise `SesError` InvalidParameterValue with the member's path."""
    sender = _read("BounceSender", parse_mailbox, given["BounceSender"])
    message = given.get("MessageDsn") or {}
    return BounceRequest(
        original_message_id=given["OriginalMessageId"],
        sender=_sender(sender, given["BounceSender"]),
        sender_address=sender.address,
        recipients=tuple(
            _recipient(item, f"BouncedRecipientInfoList.member.{number}")
            for number, item in enumerate(given["BouncedRecipientInfoList"], 1)
        ),
        sender_arn=_arn("BounceSenderArn", given.get("BounceSenderArn")),
        explanation=given.get("Explanation") or None,
        reporting_mta=_mta("MessageDsn.ReportingMta", message.get("ReportingMta")),
        arrival_date=message.get("ArrivalDate"),
        extension_fields=_extensions("MessageDsn", message),
    )


def _sender(mailbox: Mailbox, text: str) -> str:
    """Return `text` with a non-ASCII name encoded (RFC 2047) and a non-ASCII domain in A-labels."""
    address = mailbox.address
    if address.needs_smtputf8:
        raise invalid_value("BounceSender", "the local part must be ASCII")
    if text.isascii():
        return text.strip()
    return formataddr((mailbox.display_name, f"{address.local}@{address.ascii_domain}"))


def _recipient(item: Input, path: str) -> BouncedRecipient:
    bounce_type, fields = item.get("BounceType"), item.get("RecipientDsnFields")
    if bounce_type is None and fields is None:
        raise invalid_value(path, "give BounceType or RecipientDsnFields")
    recipient = _address(f"{path}.Recipient", item["Recipient"])
    parsed = None
    if fields is not None:
        parsed = _fields(fields, f"{path}.RecipientDsnFields", recipient)
    return BouncedRecipient(
        recipient=recipient,
        reason=REASONS[bounce_type] if bounce_type else None,
        fields=parsed,
        arn=_arn(f"{path}.RecipientArn", item.get("RecipientArn")),
    )


_MEMBERS = {"Diagnostic-Code": "DiagnosticCode", "Status": "Status"}


def _fields(item: Input, path: str, recipient: Address) -> RecipientFields:
    final = item.get("FinalRecipient")
    diagnostic = item.get("DiagnosticCode")
    remote_mta = item.get("RemoteMta") or None
    try:
        return RecipientFields(
            final_recipient=_address(f"{path}.FinalRecipient", final) if final else recipient,
            action=Action(item["Action"]),
            status=item["Status"],
            remote_mta=_mta(f"{path}.RemoteMta", remote_mta),
            diagnostic_code=typed_diagnostic(diagnostic) if diagnostic else None,
            last_attempt_date=item.get("LastAttemptDate"),
            extension_fields=_extensions(path, item),
        )
    except DsnError as error:
        raise invalid_value(f"{path}.{_MEMBERS[error.field]}", error.rule) from None


def typed_diagnostic(text: str) -> str:
    """Return the diagnostic with a type, which callers often omit (RFC 3464 §2.3.6).

    `552 5.2.2 full` becomes `smtp; 552 5.2.2 full`.
    """
    text = text.strip(" \t")
    if _TYPED.match(text):
        return text
    return f"smtp; {text}" if _REPLY.match(text) else f"X-Sendback; {text}"


def _extensions(path: str, item: Input) -> tuple[ExtensionField, ...]:
    return tuple(
        _read(
            f"{path}.ExtensionFields.member.{number}",
            lambda field: ExtensionField(field["Name"], field["Value"]),
            field,
        )
        for number, field in enumerate(item.get("ExtensionFields") or (), 1)
    )


def _address(path: str, text: str) -> Address:
    return _read(path, parse_address, text)


def _mta(path: str, text: str | None) -> MtaName | None:
    return None if text is None else _read(path, lambda value: MtaName.from_text(value, path), text)


def _arn(path: str, text: str | None) -> IdentityArn | None:
    return _read(path, parse_identity_arn, text) if text else None


def _read(path: str, parse: Callable[[Any], T], value: Any) -> T:
    try:
        return parse(value)
    except DsnError as error:
        raise invalid_value(path, error.rule) from None
    except (AddressError, ValueError) as error:
        raise invalid_value(path, str(error)) from None


OPERATIONS = {"SendBounce": send_bounce}
