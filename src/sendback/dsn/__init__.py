"""Delivery status notifications: RFC 3464 in the container of RFC 6522.

A library of its own: `compose` writes a bounce as bytes, `parse` reads one, `reasons` knows the
standard reasons. It must not do I/O, read a clock or make IDs; the caller passes these values.

    >>> from datetime import UTC, datetime
    >>> from sendback.dsn import Action, MtaName, RecipientFields, Report, parse_address
    >>> report = Report(
    ...     reporting_mta=MtaName("dns", "mx.example.com"),
    ...     recipients=(
    ...         RecipientFields(
    ...             final_recipient=parse_address("bob@example.com"),
    ...             action=Action.FAILED,
    ...             status="5.1.1",
    ...         ),
    ...     ),
    ... )
    >>> report.recipients[0].action
    <Action.FAILED: 'failed'>
"""

from sendback.dsn.check import Finding, check
from sendback.dsn.compose import compose
from sendback.dsn.errors import DsnError
from sendback.dsn.model import (
    Action,
    Bounce,
    ExtensionField,
    MtaName,
    OriginalRecipient,
    RecipientFields,
    Report,
    ReturnedHeaders,
    ReturnedMessage,
)
from sendback.dsn.parse import NotADsnError, ParsedDsn, ParsedRecipient, parse
from sendback.dsn.reasons import REASONS, Reason
from sendback.dsn.statuses import STATUS_TEXTS, status_text
from sendback.dsn.texts import (
    ENGLISH,
    Texts,
    TextsError,
    builtin_texts,
    choose_texts,
    parse_texts,
)
from sendback.mail.address import Address, parse_address

__all__ = [
    "ENGLISH",
    "REASONS",
    "STATUS_TEXTS",
    "Action",
    "Address",
    "Bounce",
    "DsnError",
    "ExtensionField",
    "Finding",
    "MtaName",
    "NotADsnError",
    "OriginalRecipient",
    "ParsedDsn",
    "ParsedRecipient",
    "Reason",
    "RecipientFields",
    "Report",
    "ReturnedHeaders",
    "ReturnedMessage",
    "Texts",
    "TextsError",
    "builtin_texts",
    "check",
    "choose_texts",
    "compose",
    "parse",
    "parse_address",
    "parse_texts",
    "status_text",
]
