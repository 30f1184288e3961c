"""The groups of a delivery status (RFC 3464 §2.1): one about the message, one for each recipient.

`read_blocks` returns the blocks between empty lines, for `check`; `read_groups` returns the fields
of the message and of each recipient, however they were separated, for `parse`: the fields about the
message may be missing, or share a block with the first recipient; recipients may follow each other
without an empty line; an empty line may split a recipient's fields.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sendback.dsn.content_types import parse_content_type
from sendback.dsn.mime import (
    Budget,
    Fields,
    as_text,
    decode_transfer,
    first_value,
    lines_of,
    raw_fields,
    with_crlf,
)

# RFC 3464 §2.2 and §2.3.
MESSAGE_FIELDS = frozenset(
    {
        "original-envelope-id", "reporting-mta", "dsn-gateway", "received-from-mta",
        "arrival-date",
    }
)  # fmt: skip
RECIPIENT_FIELDS = frozenset(
    {
        "original-recipient", "final-recipient", "action", "status", "remote-mta",
        "diagnostic-code", "last-attempt-date", "final-log-id", "will-retry-until",
    }
)  # fmt: skip
_ADDRESSES = frozenset({"original-recipient", "final-recipient"})
_ENCODINGS = frozenset({"base64", "quoted-printable"})


@dataclass(frozen=True, slots=True)
class Groups:
    """The fields about the message, and those of each recipient, in order."""

    message: Fields
    recipients: tuple[Fields, ...]


def read_blocks(content: bytes, budget: Budget) -> list[Fields]:
    """Return the blocks of fields that empty lines separate. Raises `TooComplexError`.

    A block can declare that the next one is encoded (MIME rewriting by gateways). A line that
    begins with `--` ends the report: it is a delimiter that its multipart does not know.
    """
    blocks: list[Fields] = []
    encoding = ""
    for lines in _blocks(with_crlf(content)):
        found = [as_text(raw_fields(lines, budget))]
        if encoding:
            decoded = with_crlf(decode_transfer(b"\r\n".join(lines), encoding))
            found = [as_text(raw_fields(inner, budget)) for inner in _blocks(decoded)]
        blocks += [fields for fields in found if fields]
        encoding = _declared(found[-1]) if found else ""
    return blocks


def read_groups(blocks: Sequence[Fields]) -> Groups:
    """Return the fields about the message and about each recipient."""
    message: list[tuple[str, str]] = []
    recipients: list[Fields] = []
    for number, block in enumerate(blocks):
        if not _has(block, RECIPIENT_FIELDS):
            if number == 0 or _has(block, MESSAGE_FIELDS):
                message += block
            continue
        about_message, own = _without_message_fields(block)
        message += about_message
        for fields in _one_each(own):
            if _continues(recipients, fields):
                recipients[-1] += fields
            else:
                recipients.append(fields)
    return Groups(tuple(message), tuple(recipients))


def _blocks(content: bytes) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    for _, line in lines_of(content, 0, len(content)):
        if line.startswith(b"--"):
            break
        if line.strip(b" \t"):
            lines.append(line)
        elif lines:
            yield lines
            lines = []
    if lines:
        yield lines


def _declared(block: Fields) -> str:
    value = first_value(block, "Content-Transfer-Encoding")
    encoding = parse_content_type(value.encode("utf-8")).media_type
    return encoding if encoding in _ENCODINGS else ""


def _names(fields: Fields) -> set[str]:
    return {name.lower() for name, _ in fields}


def _has(fields: Fields, names: frozenset[str]) -> bool:
    return not names.isdisjoint(_names(fields))


def _without_message_fields(block: Fields) -> tuple[Fields, Fields]:
    """Return the fields about the message, and the others.

    Extension fields that follow a field about the message, before any of a recipient, belong to
    the message (Postfix: X-Postfix-Queue-ID).
    """
    message: list[tuple[str, str]] = []
    own: list[tuple[str, str]] = []
    is_about_message = False
    for name, value in block:
        key = name.lower()
        if key in RECIPIENT_FIELDS:
            is_about_message = False
        elif key in MESSAGE_FIELDS:
            is_about_message = not own or is_about_message
        is_message_field = key in MESSAGE_FIELDS or (is_about_message and not own)
        (message if is_message_field else own).append((name, value))
    return tuple(message), tuple(own)


def _one_each(fields: Fields) -> Iterator[Fields]:
    """Yield the fields of each recipient, when several follow without an empty line.

    Each has one Final-Recipient; it begins with the field that the first one begins with, if that
    occurs as often, else with Final-Recipient.
    """
    keys = [name.lower() for name, _ in fields]
    count = keys.count("final-recipient")
    if count < 2:  # noqa: PLR2004 - one recipient
        yield fields
        return
    first = next(key for key in keys if key in RECIPIENT_FIELDS)
    opening = first if keys.count(first) == count else "final-recipient"
    starts = [number for number, key in enumerate(keys) if key == opening]
    for start, end in zip([0, *starts[1:]], [*starts[1:], len(fields)], strict=True):
        yield fields[start:end]


def _continues(recipients: Sequence[Fields], fields: Fields) -> bool:
    """Whether these fields lack an address and are what the recipient before them lacks."""
    if not recipients or _has(fields, _ADDRESSES):
        return False
    return _names(fields).isdisjoint(_names(recipients[-1]))
