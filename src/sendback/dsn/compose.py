"""Write a bounce as bytes: RFC 3464 in RFC 6522's multipart/report.

The form is that of recorded Amazon SES bounces (header order, part descriptions, field order),
because bounce readers are tuned to it; where SES departs from the standard, the standard wins.

Theory of operation. Every header field and DSN field goes through `fields.write_field`, which
refuses values that could become structure. In the human part line ends are normalised, and it is
encoded. The returned header section is copied octet for octet, or encoded as a whole. The boundary
must not occur in any part. So no input can inject a header, a recipient or a part.
"""

import re
from binascii import b2a_qp
from collections.abc import Iterator

from sendback.dsn.errors import DsnError
from sendback.dsn.fields import (
    MAX_LINE,
    final_recipient,
    lines_are_sound,
    original_recipient,
    write_field,
    write_utf8_field,
)
from sendback.dsn.model import (
    Action,
    Bounce,
    ExtensionField,
    RecipientFields,
    Report,
    Returned,
    ReturnedMessage,
)
from sendback.dsn.texts import ENGLISH, Texts
from sendback.mail.dates import format_date

# Unicode's line ends and every control but tab: none of them may end a line or a part.
_LINE_END = re.compile("\r\n|[\r\n\u0085\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_UNUSUAL = re.compile("[^\t\n -~]")
_LARGE = 16 * 1024
_BOUNDARY = re.compile(r"[A-Za-z0-9=_.-]{1,60}")


def compose(bounce: Bounce, boundary: str, texts: Texts = ENGLISH) -> bytes:
    """Return the bounce as octets for SMTP, with CRLF line ends, not dot-stuffed.

    `boundary` is a random string of letters and digits that the caller makes; it is
    lengthened until it does not occur in the content. `texts` writes the
    human part when the bounce has no explanation. Raise `DsnError`.
    """
    if not _BOUNDARY.fullmatch(boundary):
        raise DsnError("boundary", "is 1 to 60 letters, digits and any of = _ . -")
    human = _human_part(bounce, texts)
    report = _report_part(bounce.report)
    returned_header, returned = _returned_part(bounce.returned)
    parts = (human, report, returned)
    while any(_occurs(boundary.encode("ascii"), part) for part in parts):
        boundary += "x"
    delimiter = f"--{boundary}\r\n".encode("ascii")
    return b"".join(
        (
            *_header(bounce, boundary),
            b"\r\n",
            delimiter, human, b"\r\n",
            delimiter, report, b"\r\n",
            delimiter, returned_header, returned,
            b"\r\n" if returned.endswith(b"\r\n") or not returned else b"\r\n\r\n",
            f"--{boundary}--\r\n".encode("ascii"),
        )
    )  # fmt: skip


def _occurs(boundary: bytes, part: bytes) -> bool:
    """Whether the part contains the boundary. A search for single octets is 30 times as fast."""
    if len(part) > _LARGE and any(part.find(octet) < 0 for octet in set(boundary)):
        return False
    return boundary in part


def _header(bounce: Bounce, boundary: str) -> Iterator[bytes]:
    yield write_field("Date", format_date(bounce.date))
    yield write_field("From", bounce.sender)
    yield _to(bounce)
    yield write_field("Message-ID", f"<{bounce.message_id}>")
    yield write_field("Subject", f"Delivery Status Notification ({_outcome(bounce.report)})")
    if bounce.in_reply_to:
        yield write_field("In-Reply-To", bounce.in_reply_to)
        yield write_field("References", bounce.in_reply_to)
    yield write_field("Auto-Submitted", "auto-replied")  # RFC 3834 §3.1.7
    yield write_field("MIME-Version", "1.0")
    if bounce.needs_8bitmime:  # RFC 2045 §6.4: what a part needs, the whole needs
        yield b"Content-Transfer-Encoding: 8bit\r\n"
    yield (  # RFC 6522 §3
        f'Content-Type: multipart/report; boundary="{boundary}";\r\n'
        " report-type=delivery-status\r\n"
    ).encode("ascii")


def _to(bounce: Bounce) -> bytes:
    """Return the To field, with the reverse-path; UTF-8 only for SMTPUTF8 (RFC 6532)."""
    if bounce.to.needs_smtputf8:
        return write_utf8_field("To", str(bounce.to))
    return write_field("To", bounce.to.in_header)


_OUTCOMES = {
    Action.FAILED: "Failure",
    Action.DELAYED: "Delay",
    Action.DELIVERED: "Success",
    Action.RELAYED: "Success",
    Action.EXPANDED: "Success",
}


def _outcome(report: Report) -> str:
    outcomes = {_OUTCOMES[recipient.action] for recipient in report.recipients}
    return next(word for word in ("Failure", "Delay", "Success") if word in outcomes)


# --- the human part -------------------------------------------------------------------------


def _human_part(bounce: Bounce, texts: Texts) -> bytes:
    text = bounce.explanation if bounce.explanation is not None else texts.explain(bounce.report)
    charset, encoding, body = _encoded_text(text)
    return (
        f"Content-Type: text/plain; charset={charset}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n"
        f"Content-Description: Notification\r\n\r\n{body}\r\n"
    ).encode("ascii")


def _encoded_text(text: str) -> tuple[str, str, str]:
    """Return charset, transfer encoding and ASCII content with CRLF, without the last CRLF."""
    if len(text) <= MAX_LINE and not _UNUSUAL.search(text):  # the generated English, mostly
        return "us-ascii", "7bit", text.replace("\n", "\r\n")
    lines = [_CONTROL.sub("", line) for line in _LINE_END.split(text)]
    if all(line.isascii() and len(line) <= MAX_LINE for line in lines):
        return "us-ascii", "7bit", "\r\n".join(lines)
    encoded = (_quoted_printable(line.encode()).decode("ascii") for line in lines)
    return "utf-8", "quoted-printable", "\r\n".join(encoded)


def _quoted_printable(line: bytes) -> bytes:
    """Return an encoded line without its end (RFC 2045 §6.7); soft breaks have CRLF."""
    return b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n")


# --- the report -----------------------------------------------------------------------------


def _report_part(report: Report) -> bytes:
    groups = [b"".join(_message_fields(report))]
    groups += [b"".join(_recipient_fields(recipient)) for recipient in report.recipients]
    return (
        b"Content-Type: message/delivery-status\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"Content-Description: Delivery Status Notification\r\n\r\n"
    ) + b"\r\n".join(groups)  # groups are separated by one empty line (RFC 3464 §2.1)


def _message_fields(report: Report) -> Iterator[bytes]:
    if report.original_envelope_id is not None:  # RFC 3464 §2.2.1
        yield write_field("Original-Envelope-Id", report.original_envelope_id)
    yield write_field("Reporting-MTA", str(report.reporting_mta))  # RFC 3464 §2.2.2
    if report.received_from_mta:  # RFC 3464 §2.2.4
        yield write_field("Received-From-MTA", str(report.received_from_mta))
    if report.arrival_date:  # RFC 3464 §2.2.5
        yield write_field("Arrival-Date", format_date(report.arrival_date))
    yield from _extensions(report.extension_fields)


def _recipient_fields(recipient: RecipientFields) -> Iterator[bytes]:
    """Yield the fields in the order of recorded SES bounces; RFC 3464 §2.3 prescribes none."""
    yield write_field("Action", recipient.action.value)
    yield write_field("Final-Recipient", final_recipient(recipient.final_recipient))
    if recipient.original_recipient:  # RFC 3464 §2.3.1
        yield write_field("Original-Recipient", original_recipient(recipient.original_recipient))
    if recipient.remote_mta:  # RFC 3464 §2.3.5
        yield write_field("Remote-MTA", str(recipient.remote_mta))
    if recipient.diagnostic_code is not None:  # RFC 3464 §2.3.6
        yield write_field("Diagnostic-Code", recipient.diagnostic_code)
    yield write_field("Status", recipient.status)  # RFC 3464 §2.3.4
    if recipient.last_attempt_date:  # RFC 3464 §2.3.7
        yield write_field("Last-Attempt-Date", format_date(recipient.last_attempt_date))
    if recipient.will_retry_until:  # RFC 3464 §2.3.9
        yield write_field("Will-Retry-Until", format_date(recipient.will_retry_until))
    yield from _extensions(recipient.extension_fields)


def _extensions(fields: tuple[ExtensionField, ...]) -> Iterator[bytes]:
    for extension in fields:
        yield write_field(extension.name, extension.value)


# --- what is returned -----------------------------------------------------------------------


def _returned_part(returned: Returned) -> tuple[bytes, bytes]:
    """Return header and content of the part separately, because the content may be large."""
    if isinstance(returned, ReturnedMessage):
        encoding = "8bit" if returned.needs_8bitmime else "7bit"
        return _returned_header("message/rfc822", encoding), returned.octets
    plain = returned.octets.isascii() and b"\0" not in returned.octets
    if plain and lines_are_sound(returned.octets):
        return _returned_header("text/rfc822-headers", "7bit"), returned.octets
    # RFC 6522 §4: other headers are encoded as text is.
    return _returned_header("text/rfc822-headers", "quoted-printable"), _encode(returned.octets)


def _returned_header(media_type: str, encoding: str) -> bytes:
    return (
        f"Content-Type: {media_type}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n"
        "Content-Description: Undelivered Message\r\n\r\n"
    ).encode("ascii")


def _encode(data: bytes) -> bytes:
    """Return quoted-printable octets; a bare CR or LF is encoded."""
    return b"\r\n".join(_quoted_printable(line) for line in data.split(b"\r\n"))
