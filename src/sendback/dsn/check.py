"""Check a bounce from any producer against the standards.

Theory of operation. `mime` splits the message into parts, and each rule is a function that yields
its findings. No code is shared with `compose`, so that the checks are independent of the writer. A
rule is a requirement of a standard; what is merely unusual is not a finding. `mime` reads
leniently; each fault that it tolerates and a standard forbids has a rule here.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sendback.dsn.content_types import without_comments
from sendback.dsn.groups import MESSAGE_FIELDS, RECIPIENT_FIELDS, read_blocks
from sendback.dsn.mime import (
    Budget,
    Fields,
    Part,
    TooComplexError,
    all_values,
    first_value,
    is_field,
    lines_of,
    read_message,
)
from sendback.dsn.parse import find_reports, is_report
from sendback.mail.printable import printable

MAX_FINDINGS = 1000
_SHOWN = 60  # characters of a value


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation: the section of the standard, the place in the message, and the rule."""

    section: str
    where: str
    rule: str

    def __str__(self) -> str:
        return f"{self.section}: {self.where}: {self.rule}"


Findings = Iterator[Finding]

MAX_LINE = 998
_TYPED = re.compile(r"([A-Za-z0-9-]+) *; *(.+)", re.DOTALL)
_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Za-z:.]+\]")
_STATUS = re.compile(
    r"([245])\.(?:0|[1-9]\d{0,2})\.(?:0|[1-9]\d{0,2})(?:[ \t]*\(.*\))?", re.DOTALL | re.ASCII
)
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"
_DATE = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), *)?(\d{1,2}) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d)"
    r"(?::(\d\d))? [+-](\d\d)(\d\d)(?: *\([^)]*\))?",
    re.ASCII,
)
_MESSAGE_ID = re.compile(r"<[^<>@\s]++@[^<>\s]++>")
_XTEXT = re.compile(r"\+(?:2B|3D)")  # what xtext makes of + and =
_REPLY = re.compile(r"[245]\d\d[ -]", re.ASCII)
_CLASSES = {"failed": "45", "delayed": "4", "delivered": "2", "relayed": "2", "expanded": "2"}
_REPORTS = frozenset({"message/delivery-status", "message/global-delivery-status"})
_RETURNED = {
    "message/rfc822",
    "text/rfc822-headers",
    "message/global",
    "message/global-headers",
}
_REGISTERED = {"localized-diagnostic", "localized-description"}


def check(message: bytes) -> list[Finding]:
    """Return the findings, in the order of the message; none for a correct bounce.

    Never raises, whatever the octets; work and memory are linear in their size. At most
    `MAX_FINDINGS` findings are returned.
    """
    found = list(islice(_findings(message), MAX_FINDINGS + 1))
    if len(found) > MAX_FINDINGS:
        found[MAX_FINDINGS:] = [Finding("-", "message", f"has over {MAX_FINDINGS} findings")]
    return found


def _findings(message: bytes) -> Findings:
    budget = Budget()
    yield from _octets(message)
    try:
        whole = read_message(message, budget)
        yield from _header(whole)
        yield from _container(whole)
        yield from _report(whole, budget)
    except TooComplexError as error:
        yield Finding("-", "message", f"is not read to its end: {error}")


def _report(whole: Part, budget: Budget) -> Findings:
    """Check the report that `parse` would read, else the first part with its type."""
    found = find_reports(whole, Budget())
    if found is not None:
        container, reports = found
        report = (container.children or (container,))[min(reports)]
    else:
        candidates = [leaf for leaf in whole.leaves() if is_report(leaf)]
        if not candidates:
            return
        report = candidates[0]
    yield from _report_part(report)
    blocks = read_blocks(report.decoded(), budget)
    if len(blocks) < 2:  # noqa: PLR2004 - one a message, one a recipient
        rule = "reports on no recipient: an empty line comes before each recipient's fields"
        yield Finding("RFC 3464 §2.1", "report", rule)
    for fields in blocks[:1]:
        yield from _message_group(fields)
    for number, fields in enumerate(blocks[1:], 1):
        yield from _recipient_group(fields, f"recipient {number}")


# --- the message ----------------------------------------------------------------------------


def _octets(message: bytes) -> Findings:
    ends = message.count(b"\r\n")
    if message.count(b"\n") != ends or message.count(b"\r") != ends:
        yield Finding("RFC 5322 §2.3", "message", "has a bare CR or LF")
    if any(len(line) > MAX_LINE for _, line in lines_of(message, 0, len(message))):
        yield Finding("RFC 5322 §2.1.1", "message", f"has a line of over {MAX_LINE} octets")
    if not is_field(message[: message.find(b"\n") + 1]):
        yield Finding("RFC 5322 §2.1", "message", "does not begin with a header field")


def _header(whole: Part) -> Findings:
    for name in ("From", "Date", "Message-ID", "To"):
        count = len(all_values(whole.header, name))
        if count != 1:
            section = "RFC 5322 §3.6" if name != "To" else "RFC 3464 §2"
            yield Finding(section, name, f"is there {count} times, not once")
    if first_value(whole.header, "MIME-Version").partition("(")[0].strip() != "1.0":
        yield Finding("RFC 2045 §4", "MIME-Version", "is not 1.0")
    submitted = first_value(whole.header, "Auto-Submitted").partition(";")[0].strip().lower()
    if submitted in {"", "no"}:
        yield Finding("RFC 3834 §3.1.7", "Auto-Submitted", "does not say that it is automatic")
    yield from _date(first_value(whole.header, "Date"), "Date")
    return_path = first_value(whole.header, "Return-Path")
    if return_path and return_path.strip() != "<>":
        yield Finding("RFC 3464 §2", "Return-Path", "is not the null reverse-path <>")


def _container(whole: Part) -> Findings:
    yield from _type_of_container(whole)
    if not whole.is_separated:
        yield Finding("RFC 5322 §2.1", "message", "has no empty line below its header")
    if not whole.is_closed:
        yield Finding("RFC 2046 §5.1.1", "message", "does not end with its closing delimiter")
    parts = whole.children
    if not 2 <= len(parts) <= 3:  # noqa: PLR2004 - RFC 6522 §3
        yield Finding("RFC 6522 §3", "message", f"has {len(parts)} parts, not two or three")
    yield from _kinds(parts)
    for number, part in enumerate(parts, 1):
        yield from _part(part, f"part {number}", whole)
    if len(parts) > 2:  # noqa: PLR2004 - the third part
        yield from _returned(parts[2])


def _type_of_container(whole: Part) -> Findings:
    if whole.media_type != "multipart/report":
        yield Finding("RFC 6522 §3", "Content-Type", "is not multipart/report")
    if whole.parameters.get("report-type", "").lower() != "delivery-status":
        yield Finding("RFC 6522 §3", "Content-Type", "report-type is not delivery-status")
    if whole.encoding not in {"7bit", "8bit", "binary"}:
        yield Finding("RFC 2045 §6.4", "Content-Transfer-Encoding", "a multipart is never encoded")


def _kinds(parts: Sequence[Part]) -> Findings:
    """Check that the report is the second part (RFC 6522 §3)."""
    kinds = [printable(part.media_type, _SHOWN) for part in parts]
    if len(kinds) > 1 and kinds[1] not in _REPORTS:
        yield Finding("RFC 6522 §3", "part 2", f"is {kinds[1] or 'untyped'}, not a delivery status")


def _part(part: Part, where: str, whole: Part) -> Findings:
    if part.encoding == "7bit" and not part.body.isascii():
        yield Finding("RFC 2045 §2.7", where, "is declared 7bit and holds 8-bit octets")
    if part.encoding == "8bit" and whole.encoding == "7bit":
        yield Finding("RFC 2045 §6.4", where, "is 8bit in a multipart that is declared 7bit")
    if not part.is_separated:
        yield Finding("RFC 2046 §5.1", where, "has no empty line below its header")


def _returned(part: Part) -> Findings:
    kind = part.media_type
    if kind not in _RETURNED:
        shown = printable(kind, _SHOWN) or "untyped"
        yield Finding("RFC 6522 §3", "part 3", f"is {shown}, not the returned mail")
    if kind == "message/rfc822" and part.encoding not in {"7bit", "8bit", "binary"}:
        yield Finding("RFC 2046 §5.2.1", "part 3", "message/rfc822 is never encoded")
    if kind == "text/rfc822-headers" and part.decoded().partition(b"\r\n\r\n")[2].strip():
        yield Finding("RFC 6522 §4", "part 3", "text/rfc822-headers holds more than headers")


# --- the report -----------------------------------------------------------------------------


def _report_part(report: Part) -> Findings:
    if report.media_type == "message/delivery-status":
        if report.encoding != "7bit":
            encoding = printable(report.encoding, _SHOWN)
            yield Finding("RFC 3464 §2.1", "report", f"is {encoding}, not 7bit")
        if report.parameters:
            names = printable(", ".join(report.parameters))
            yield Finding("RFC 3464 §2.1", "report", f"has parameters: {names}")
    content = report.decoded()
    empty = 0
    for _, line in lines_of(content, 0, len(content)):
        if line and line[:1] not in {b" ", b"\t"} and not is_field(line):
            yield Finding("RFC 3464 §2.1.1", "report", f"{_shown(line)} is no field")
        if line and empty > 1:
            rule = f"has {empty} empty lines in a row between its groups, not one"
            yield Finding("RFC 3464 §2.1", "report", rule)
        empty = 0 if line else empty + 1


def _message_group(fields: Fields) -> Findings:
    yield from _names(fields, MESSAGE_FIELDS, "per message")
    count = len(all_values(fields, "Reporting-MTA"))
    if count == 0:
        yield Finding("RFC 3464 §2.2.2", "Reporting-MTA", "is missing")
    for name, section in (
        ("Reporting-MTA", "RFC 3464 §2.2.2"),
        ("DSN-Gateway", "RFC 3464 §2.2.3"),
        ("Received-From-MTA", "RFC 3464 §2.2.4"),
    ):
        for value in all_values(fields, name):
            yield from _mta(value, name, section)
    for value in all_values(fields, "Arrival-Date"):
        yield from _date(value, "Arrival-Date")
    for value in all_values(fields, "Original-Envelope-Id"):
        if _MESSAGE_ID.fullmatch(value):
            rule = "looks like a Message-ID; it is what ENVID gave"
            yield Finding("RFC 3464 §2.2.1", "Original-Envelope-Id", rule)


def _recipient_group(fields: Fields, where: str) -> Findings:
    yield from _names(fields, RECIPIENT_FIELDS, where)
    for name, section in (
        ("Final-Recipient", "RFC 3464 §2.3.2"),
        ("Action", "RFC 3464 §2.3.3"),
        ("Status", "RFC 3464 §2.3.4"),
    ):
        if not all_values(fields, name):
            yield Finding(section, f"{where}, {name}", "is missing")
    for name, values in ((name, all_values(fields, name)) for name in _RECIPIENT_RULES):
        for value in values:
            yield from _RECIPIENT_RULES[name](value, f"{where}, {name}")
    yield from _agreement(fields, where)


def _names(fields: Fields, standard: frozenset[str], where: str) -> Findings:
    for name, count in Counter(name.lower() for name, _ in fields).items():
        place = f"{where}, {printable(name, _SHOWN)}"
        if name in standard and count > 1:
            yield Finding("RFC 3464 §2.1", place, "occurs more than once")
        if name not in standard and name not in _REGISTERED and not name.startswith("x-"):
            yield Finding("RFC 3464 §2.4", place, "is neither registered nor X-…")


def _agreement(fields: Fields, where: str) -> Findings:
    action = first_value(fields, "Action").lower()
    status = _STATUS.fullmatch(first_value(fields, "Status"))
    if status and action in _CLASSES and status[1] not in _CLASSES[action]:
        rule = f"is of class {status[1]}, and the action is {action}"
        yield Finding("RFC 3464 §2.3.4", f"{where}, Status", rule)
    if first_value(fields, "Will-Retry-Until") and action != "delayed":
        rule = "is there, and the recipient is not delayed"
        yield Finding("RFC 3464 §2.3.9", f"{where}, Will-Retry-Until", rule)


def _mta(value: str, where: str, section: str) -> Findings:
    match = _TYPED.fullmatch(value)
    if not match:
        yield Finding(section, where, f"{_shown(value)} is not of the form type; name")
    elif match[1].lower() == "dns" and not _HOST.fullmatch(without_comments(match[2])):
        yield Finding(section, where, f"{_shown(match[2])} is not a host name")


def _date(value: str, where: str) -> Findings:
    if not value:
        return
    match = _DATE.fullmatch(value)
    if match is None:
        rule = f"{_shown(value)} lacks a four-digit year or a numeric zone"
        yield Finding("RFC 5322 §3.3", where, rule)
    elif not _exists(match):
        yield Finding("RFC 5322 §3.3", where, f"{_shown(value)} is no date")


def _exists(match: re.Match[str]) -> bool:
    """Whether the day, the time (a leap second is valid, §3.3) and the zone exist."""
    months = _MONTHS.split()
    day, month, year, hour, minute, second, _, zone_minute = match.groups("0")
    if month not in months or int(second) > 60 or int(zone_minute) > 59:  # noqa: PLR2004
        return False
    try:
        datetime(int(year), months.index(month) + 1, int(day), int(hour), int(minute))  # noqa: DTZ001
    except ValueError:
        return False
    return True


def _shown(value: str | bytes) -> str:
    """Return a value in quotes, escaped and cut."""
    text = value[: _SHOWN * 4].decode("utf-8", "replace") if isinstance(value, bytes) else value
    return f"'{printable(text, _SHOWN)}'"


def _address(section: str) -> Callable[[str, str], Findings]:
    def rule(value: str, where: str) -> Findings:
        match = _TYPED.fullmatch(value)
        if not match:
            yield Finding(section, where, f"{_shown(value)} is not of the form type; address")
        elif match[1].lower() == "utf8":
            yield Finding("RFC 6533 §3", where, "the type is utf-8, not utf8")
        elif match[1].lower() == "rfc822" and not match[2].isascii():
            yield Finding("RFC 6533 §3", where, "a non-ASCII address is of type utf-8")

    return rule


def _original_recipient(value: str, where: str) -> Findings:
    yield from _address("RFC 3464 §2.3.1")(value, where)
    if _XTEXT.search(value):
        rule = f"{_shown(value)} looks like the xtext of ORCPT, which is to be decoded"
        yield Finding("RFC 3461 §6.3", where, rule)


def _action(value: str, where: str) -> Findings:
    if without_comments(value).lower() not in _CLASSES:
        yield Finding("RFC 3464 §2.3.3", where, f"{_shown(value)} is no action")


def _status(value: str, where: str) -> Findings:
    if not _STATUS.fullmatch(value):
        yield Finding("RFC 3464 §2.3.4", where, f"{_shown(value)} is not a status such as 5.1.1")


def _diagnostic(value: str, where: str) -> Findings:
    match = _TYPED.fullmatch(value)
    if not match:
        yield Finding("RFC 3464 §2.3.6", where, f"{_shown(value)} is not of the form type; text")
    elif match[1].lower() == "smtp" and not _REPLY.match(match[2] + " "):
        rule = f"of type smtp does not begin with a reply code: {_shown(match[2])}"
        yield Finding("RFC 3461 §9.2", where, rule)


_RECIPIENT_RULES: dict[str, Callable[[str, str], Findings]] = {
    "Original-Recipient": _original_recipient,
    "Final-Recipient": _address("RFC 3464 §2.3.2"),
    "Action": _action,
    "Status": _status,
    "Remote-MTA": lambda value, where: _mta(value, where, "RFC 3464 §2.3.5"),
    "Diagnostic-Code": _diagnostic,
    "Last-Attempt-Date": _date,
    "Will-Retry-Until": _date,
}
