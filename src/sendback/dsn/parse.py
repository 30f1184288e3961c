"""Parse a DSN from any producer. Independent of `compose`, so that each can test the other.

It is lenient about form, which RFC 3464 and RFC 6522 prescribe to writers: any multipart around the
report, any encoding and line ends, groups that are not separated as they should be. It is strict
about meaning: a report inside the returned mail is about another mail; a report without a
recipient is not a DSN.
"""

import re
import sys
from dataclasses import dataclass

from sendback.dsn.content_types import without_comments
from sendback.dsn.groups import (
    MESSAGE_FIELDS,
    RECIPIENT_FIELDS,
    Groups,
    read_blocks,
    read_groups,
)
from sendback.dsn.mime import (
    Budget,
    Fields,
    Part,
    TooComplexError,
    first_value,
    read_message,
)
from sendback.errors import SendbackError

_UTF8_XTEXT = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9/_-]++\s*+;")
_SURROGATES = range(0xD800, 0xE000)
_STANDARD_FIELDS = MESSAGE_FIELDS | RECIPIENT_FIELDS
# RFC 6522 §3, RFC 6533 §5; message/rfc822-headers is a common mistake.
_RETURNED = frozenset(
    {
        "message/rfc822",
        "message/global",
        "text/rfc822-headers",
        "message/rfc822-headers",
        "message/global-headers",
    }
)


class NotADsnError(SendbackError, ValueError):
    """The message has no delivery status that reports on a recipient; `str(error)` is the reason.

    Also a message with more parts or fields than are read.
    """


@dataclass(frozen=True, slots=True)
class ParsedRecipient:
    """One recipient's group: its fields in order, and the usual ones by name."""

    fields: Fields

    @property
    def final_recipient(self) -> str:
        """The address, without type, angle brackets and comment, RFC 6533 escapes decoded.

        It is that of Final-Recipient, of Original-Recipient in a group without one.
        """
        value = first_value(self.fields, "Final-Recipient")
        return _address(value or first_value(self.fields, "Original-Recipient"))

    @property
    def action(self) -> str:
        """In lower case, without comment."""
        return without_comments(first_value(self.fields, "Action")).lower()

    @property
    def status(self) -> str:
        """Without comment."""
        return without_comments(first_value(self.fields, "Status"))

    @property
    def diagnostic(self) -> str:
        """The text of Diagnostic-Code without its type: `550 5.1.1 Mailbox does not exist`."""
        return first_value(self.fields, "Diagnostic-Code").partition(";")[2].strip()


@dataclass(frozen=True, slots=True)
class ParsedDsn:
    """The header, the human part as text, both kinds of report fields, what was returned.

    `explanation` is the first text/plain before the report, also of a multipart/alternative;
    lines end in CRLF. `returned` has CRLF line ends too.
    """

    header: Fields
    explanation: str
    message_fields: Fields
    recipients: tuple[ParsedRecipient, ...]
    returned_type: str
    returned: bytes

    @property
    def actions(self) -> tuple[str, ...]:
        """The action of each recipient."""
        return tuple(recipient.action for recipient in self.recipients)

    @property
    def statuses(self) -> tuple[str, ...]:
        """The status of each recipient."""
        return tuple(recipient.status for recipient in self.recipients)

    def header_value(self, name: str) -> str:
        return first_value(self.header, name)

    def message_value(self, name: str) -> str:
        return first_value(self.message_fields, name)


def parse(message: bytes) -> ParsedDsn:
    """Return the parsed DSN. Raise `NotADsnError`, and nothing else for any octets.

    Work and memory are linear in the size of the message.
    """
    budget = Budget()
    try:
        whole = read_message(message, budget)
        found = find_reports(whole, budget)
    except TooComplexError as error:
        raise NotADsnError(f"the message is too complex: {error}") from None
    if found is None:
        raise NotADsnError(_what_is_missing(whole))
    container, reports = found
    returned = _returned(container, max(reports))
    return ParsedDsn(
        header=whole.header,
        explanation=_explanation(whole, container, min(reports)),
        message_fields=tuple(f for groups in reports.values() for f in groups.message),
        recipients=tuple(
            ParsedRecipient(fields) for groups in reports.values() for fields in groups.recipients
        ),
        returned_type=returned.media_type if returned else "",
        returned=returned.decoded() if returned else b"",
    )


def find_reports(part: Part, budget: Budget) -> tuple[Part, dict[int, Groups]] | None:
    """Return the multipart with the first report on a recipient, and its reports by position.

    A message that is a report itself counts as its only part. Raises `TooComplexError`.
    """
    children = part.children or (part,)
    reports = {
        number: groups
        for number, child in enumerate(children)
        if is_report(child) and (groups := _groups(child, budget, is_top=child is part)).recipients
    }
    if reports:
        return part, reports
    inner = (find_reports(child, budget) for child in part.children if child.children)
    return next((found for found in inner if found), None)


def is_report(part: Part) -> bool:
    """Whether it is a delivery status by its type: message/delivery-status, …/global-…, X-…."""
    return part.media_type.endswith("delivery-status") and not part.children


def _groups(report: Part, budget: Budget, *, is_top: bool) -> Groups:
    """Return the groups of a report; as it is, when decoding it gives none.

    Where the empty line below the part's header is missing, fields of the report are in there.
    """
    in_header = () if is_top else _standard(report.header)
    first = [in_header] if in_header else []
    groups = read_groups([*first, *read_blocks(report.decoded(), budget)])
    if not groups.recipients and report.encoding != "7bit":
        groups = read_groups([*first, *read_blocks(report.body, budget)])
    return groups


def _standard(fields: Fields) -> Fields:
    return tuple(field for field in fields if field[0].lower() in _STANDARD_FIELDS)


def _what_is_missing(whole: Part) -> str:
    if any(is_report(leaf) for leaf in whole.leaves()):
        return "the delivery status reports on no recipient"
    if not whole.children:
        return "the message is not a multipart/report with a delivery-status part"
    return "the multipart has no delivery-status part"


def _explanation(whole: Part, container: Part, position: int) -> str:
    """Return the text for people: of the parts before the report, of those around, of any."""
    children = container.children
    before = [leaf for child in children[:position] for leaf in child.leaves()]
    own = set(map(id, container.leaves()))
    around = [leaf for leaf in whole.leaves() if id(leaf) not in own]
    after = [leaf for leaf in children[position + 1 :] if _rank(leaf) == 0]
    for leaves in (before, around, after):
        readable = [leaf for leaf in leaves if _rank(leaf) is not None]
        if readable:
            return min(readable, key=lambda leaf: _rank(leaf) or 0).text()
    return ""


def _rank(leaf: Part) -> int | None:
    """Return the rank of a part as the text for people, 0 the best; None: unsuitable."""
    kind = leaf.media_type
    if kind in {"text/plain", ""} or "/" not in kind:  # RFC 2045 §5.2: the default
        return 0
    if kind in _RETURNED:
        return None
    if kind.startswith("text/"):
        return 1
    return 2 if is_report(leaf) else None  # without a recipient: some put their text there


def _returned(container: Part, position: int) -> Part | None:
    """Return the returned mail: after the reports, by its type if possible."""
    behind = container.children[position + 1 :]
    likely = [part for part in behind if part.media_type in _RETURNED]
    anywhere = [part for part in container.children if part.media_type in _RETURNED]
    return next(iter([*likely, *behind, *anywhere]), None)


def _address(value: str) -> str:
    """Return the address of `type; address`, of `<address>`, of an address alone."""
    value = value.lstrip("\ufffd \xa0")  # a non-breaking space in Latin-1 cannot be decoded
    typed = _ADDRESS_TYPE.match(value)
    text = without_comments(value[typed.end() :] if typed else value)
    if text.endswith(">") and "<" in text:
        text = text[text.rindex("<") + 1 : -1]
    return _UTF8_XTEXT.sub(_character, text.strip("<> \t"))


def _character(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return "\ufffd" if code > sys.maxunicode or code in _SURROGATES else chr(code)
