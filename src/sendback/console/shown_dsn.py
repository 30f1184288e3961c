"""A report as it is shown: its text, its fields, what it returns, and what is wrong with it."""

from dataclasses import dataclass

from sendback.dsn import NotADsnError, parse
from sendback.dsn.check import Finding, check

_MAX_RETURNED = 20_000
_MAX_RAW = 60_000
_MAX_GROUPS = 50


@dataclass(frozen=True, slots=True)
class ShownDsn:
    """The parts of a report.

    `explanation` is the part for people, `message_fields` and `groups` the part for programs,
    `returned` the beginning of what is returned. `raw` is cut when `is_cut`.
    """

    header: tuple[tuple[str, str], ...]
    explanation: str
    message_fields: tuple[tuple[str, str], ...]
    groups: tuple[tuple[tuple[str, str], ...], ...]
    returned_type: str
    returned: str
    findings: tuple[Finding, ...]
    raw: str
    is_cut: bool


def shown_dsn(content: bytes) -> ShownDsn | None:
    """Return a mail as a report; None if it is none. Takes some milliseconds."""
    try:
        parsed = parse(content)
    except NotADsnError:
        return None
    return ShownDsn(
        header=tuple(parsed.header),
        explanation=parsed.explanation,
        message_fields=tuple(parsed.message_fields),
        groups=tuple(tuple(entry.fields) for entry in parsed.recipients[:_MAX_GROUPS]),
        returned_type=parsed.returned_type,
        returned=parsed.returned[:_MAX_RETURNED].decode("utf-8", "replace"),
        findings=tuple(check(content)),
        raw=content[:_MAX_RAW].decode("utf-8", "replace"),
        is_cut=len(content) > _MAX_RAW,
    )
