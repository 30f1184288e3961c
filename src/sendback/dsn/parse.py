"""Reads a DSN, anyone's: written apart from `compose`, so that each can judge the other.

It cuts the multipart by its boundary and the report by its empty lines; it is lenient about what
RFC 3464 asks of writers and strict about structure: no boundary, no report, no answer.
"""

import re
import sys
from dataclasses import dataclass

from sendback.dsn.mime import Fields, Part, first_value, read_part, split_groups, split_parts

_UTF8_XTEXT = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")


def _character(digits: str) -> str:
    code = int(digits, 16)
    return chr(code) if code <= sys.maxunicode else "\ufffd"


class NotADsnError(ValueError):
    """The message is no multipart/report with a delivery status in it."""


@dataclass(frozen=True, slots=True)
class ParsedRecipient:
    """One recipient's group: its fields in order, and the usual ones by name."""

    fields: Fields

    @property
    def final_recipient(self) -> str:
        """The address without its type, RFC 6533 escapes decoded."""
        value = first_value(self.fields, "Final-Recipient").partition(";")[2].strip()
        return _UTF8_XTEXT.sub(lambda match: _character(match[1]), value)

    @property
    def action(self) -> str:
        return first_value(self.fields, "Action").lower()

    @property
    def status(self) -> str:
        return first_value(self.fields, "Status")


@dataclass(frozen=True, slots=True)
class ParsedDsn:
    """The header, the human part as text, both kinds of report fields, what was returned."""

    header: Fields
    explanation: str
    message_fields: Fields
    recipients: tuple[ParsedRecipient, ...]
    returned_type: str
    returned: bytes

    def header_value(self, name: str) -> str:
        return first_value(self.header, name)

    def message_value(self, name: str) -> str:
        return first_value(self.message_fields, name)


def parse(message: bytes) -> ParsedDsn:
    """Reads one DSN. Raises `NotADsnError`."""
    whole = read_part(message)
    boundary = whole.parameters.get("boundary")
    if whole.media_type != "multipart/report" or not boundary:
        raise NotADsnError("the message is not a multipart/report with a boundary")
    parts = split_parts(whole.body, boundary)
    report = next((p for p in parts if p.media_type.endswith("delivery-status")), None)
    if report is None:
        raise NotADsnError("the multipart/report has no delivery-status part")
    groups = split_groups(report.body)
    if len(groups) < 2:  # noqa: PLR2004 - RFC 3464 §2.1: one group a message, one a recipient
        raise NotADsnError("the delivery status reports on no recipient")
    human = parts[0]
    returned = parts[2] if len(parts) > 2 else Part((), b"")  # noqa: PLR2004 - the third part
    return ParsedDsn(
        header=whole.header,
        explanation=_text(human),
        message_fields=groups[0],
        recipients=tuple(ParsedRecipient(group) for group in groups[1:]),
        returned_type=returned.media_type,
        returned=returned.decoded(),
    )


def _text(part: Part) -> str:
    charset = part.parameters.get("charset", "us-ascii")
    try:
        return part.decoded().decode(charset, "replace")
    except LookupError:
        return part.decoded().decode("utf-8", "replace")
