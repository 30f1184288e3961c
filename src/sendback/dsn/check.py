"""Judges a bounce, anyone's, against the standards: each finding with its section.

Theory of operation. The message is cut apart by `mime`, and every rule is a function that looks at
one thing and yields what it finds. Nothing is shared with `compose`: what writes must not judge
itself. A rule says what a text of a standard asks for; what is merely unusual is no finding.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from sendback.dsn.mime import (
    Fields,
    Part,
    all_values,
    first_value,
    read_part,
    split_groups,
    split_parts,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong: the section that says so, where, and the rule in words."""

    section: str
    where: str
    rule: str

    def __str__(self) -> str:
        return f"{self.section}: {self.where}: {self.rule}"


Findings = Iterator[Finding]

MAX_LINE = 998
_TYPED = re.compile(r"([A-Za-z0-9-]+) *; *(.+)", re.DOTALL)
_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Za-z:.]+\]")
_STATUS = re.compile(r"([245])\.(?:0|[1-9]\d{0,2})\.(?:0|[1-9]\d{0,2})(?:[ \t]*\(.*\))?", re.DOTALL)
_DATE = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), *)?\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d(?::\d\d)?"
    r" [+-]\d{4}(?: *\([^)]*\))?"
)
_MESSAGE_ID = re.compile(r"<[^<>\s]+@[^<>\s]+>")
_XTEXT = re.compile(r"\+(?:2B|3D)")  # what xtext makes of + and =
_REPLY = re.compile(r"[245]\d\d[ -]")
_CLASSES = {"failed": "45", "delayed": "4", "delivered": "2", "relayed": "2", "expanded": "2"}
_RETURNED = {
    "message/rfc822",
    "text/rfc822-headers",
    "message/global",
    "message/global-headers",
}
_MESSAGE_FIELDS = {
    "original-envelope-id", "reporting-mta", "dsn-gateway", "received-from-mta", "arrival-date",
}  # fmt: skip
_RECIPIENT_FIELDS = {
    "original-recipient", "final-recipient", "action", "status", "remote-mta", "diagnostic-code",
    "last-attempt-date", "final-log-id", "will-retry-until",
}  # fmt: skip
_REGISTERED = {"localized-diagnostic", "localized-description"}


def check(message: bytes) -> list[Finding]:
    """Everything that is found, in the order of the message; an empty list is a clean bounce."""
    whole = read_part(message)
    parts = split_parts(whole.body, whole.parameters.get("boundary", ""))
    findings = [*_octets(message), *_header(whole), *_container(whole, parts)]
    report = next((part for part in parts if part.media_type.endswith("delivery-status")), None)
    if report is None:
        return findings
    findings += _report_part(report)
    groups = split_groups(report.body)
    if len(groups) < 2:  # noqa: PLR2004 - one a message, one a recipient
        findings.append(Finding("RFC 3464 §2.1", "report", "reports on no recipient"))
    for fields in groups[:1]:
        findings += _message_group(fields)
    for number, fields in enumerate(groups[1:], 1):
        findings += _recipient_group(fields, f"recipient {number}")
    return findings


# --- the message ----------------------------------------------------------------------------


def _octets(message: bytes) -> Findings:
    ends = message.count(b"\r\n")
    if message.count(b"\n") != ends or message.count(b"\r") != ends:
        yield Finding("RFC 5322 §2.3", "message", "has a bare CR or LF")
    if any(len(line) > MAX_LINE for line in message.split(b"\r\n")):
        yield Finding("RFC 5322 §2.1.1", "message", f"has a line of over {MAX_LINE} octets")


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


def _container(whole: Part, parts: list[Part]) -> Findings:
    if whole.media_type != "multipart/report":
        yield Finding("RFC 6522 §3", "Content-Type", "is not multipart/report")
    if whole.parameters.get("report-type", "").lower() != "delivery-status":
        yield Finding("RFC 6522 §3", "Content-Type", "report-type is not delivery-status")
    if whole.encoding not in {"7bit", "8bit", "binary"}:
        yield Finding("RFC 2045 §6.4", "Content-Transfer-Encoding", "a multipart is never encoded")
    if not 2 <= len(parts) <= 3:  # noqa: PLR2004 - RFC 6522 §3
        yield Finding("RFC 6522 §3", "message", f"has {len(parts)} parts, not two or three")
    kinds = [part.media_type for part in parts]
    if len(kinds) > 1 and kinds[1] not in {
        "message/delivery-status",
        "message/global-delivery-status",
    }:
        yield Finding("RFC 6522 §3", "part 2", f"is {kinds[1] or 'untyped'}, not a delivery status")
    for number, part in enumerate(parts, 1):
        yield from _part(part, f"part {number}", whole)
    if len(parts) > 2:  # noqa: PLR2004 - the third part
        yield from _returned(parts[2])


def _part(part: Part, where: str, whole: Part) -> Findings:
    if part.encoding == "7bit" and not part.body.isascii():
        yield Finding("RFC 2045 §2.7", where, "is declared 7bit and holds 8-bit octets")
    if part.encoding == "8bit" and whole.encoding == "7bit":
        yield Finding("RFC 2045 §6.4", where, "is 8bit in a multipart that is declared 7bit")


def _returned(part: Part) -> Findings:
    kind = part.media_type
    if kind not in _RETURNED:
        yield Finding("RFC 6522 §3", "part 3", f"is {kind or 'untyped'}, not the returned mail")
    if kind == "message/rfc822" and part.encoding not in {"7bit", "8bit", "binary"}:
        yield Finding("RFC 2046 §5.2.1", "part 3", "message/rfc822 is never encoded")
    if kind == "text/rfc822-headers" and part.decoded().partition(b"\r\n\r\n")[2].strip():
        yield Finding("RFC 6522 §4", "part 3", "text/rfc822-headers holds more than headers")


# --- the report -----------------------------------------------------------------------------


def _report_part(report: Part) -> Findings:
    if report.media_type == "message/delivery-status":
        if report.encoding != "7bit":
            yield Finding("RFC 3464 §2.1", "report", f"is {report.encoding}, not 7bit")
        if report.parameters:
            names = ", ".join(report.parameters)
            yield Finding("RFC 3464 §2.1", "report", f"has parameters: {names}")
    for line in report.body.split(b"\r\n"):
        if line and line[:1] not in {b" ", b"\t"} and b":" not in line:
            text = line[:60].decode("ascii", "replace")
            yield Finding("RFC 3464 §2.1.1", "report", f"{text!r} is no field")


def _message_group(fields: Fields) -> Findings:
    yield from _names(fields, _MESSAGE_FIELDS, "per message")
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
    yield from _names(fields, _RECIPIENT_FIELDS, where)
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


def _names(fields: Fields, standard: set[str], where: str) -> Findings:
    names = [name.lower() for name, _ in fields]
    for name in dict.fromkeys(names):
        if name in standard and names.count(name) > 1:
            yield Finding("RFC 3464 §2.1", f"{where}, {name}", "occurs more than once")
        if name not in standard and name not in _REGISTERED and not name.startswith("x-"):
            yield Finding("RFC 3464 §2.4", f"{where}, {name}", "is neither registered nor X-…")


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
        yield Finding(section, where, f"{value!r} is not of the form type; name")
    elif match[1].lower() == "dns" and not _HOST.fullmatch(_without_comment(match[2])):
        yield Finding(section, where, f"{match[2]!r} is not a host name")


def _without_comment(text: str) -> str:
    return re.sub(r"\s*\([^)]*\)", "", text).strip()


def _date(value: str, where: str) -> Findings:
    if not value:
        return
    if not _DATE.fullmatch(value):
        yield Finding(
            "RFC 5322 §3.3", where, f"{value!r} lacks a four-digit year or a numeric zone"
        )
        return
    try:
        parsedate_to_datetime(value)
    except ValueError:
        yield Finding("RFC 5322 §3.3", where, f"{value!r} is no date")


def _address(section: str) -> Callable[[str, str], Findings]:
    def rule(value: str, where: str) -> Findings:
        match = _TYPED.fullmatch(value)
        if not match:
            yield Finding(section, where, f"{value!r} is not of the form type; address")
        elif match[1].lower() == "utf8":
            yield Finding("RFC 6533 §3", where, "the type is utf-8, not utf8")
        elif match[1].lower() == "rfc822" and not match[2].isascii():
            yield Finding("RFC 6533 §3", where, "a non-ASCII address is of type utf-8")

    return rule


def _original_recipient(value: str, where: str) -> Findings:
    yield from _address("RFC 3464 §2.3.1")(value, where)
    if _XTEXT.search(value):
        rule = f"{value!r} looks like the xtext of ORCPT, which is to be decoded"
        yield Finding("RFC 3461 §6.3", where, rule)


def _action(value: str, where: str) -> Findings:
    if _without_comment(value).lower() not in _CLASSES:
        yield Finding("RFC 3464 §2.3.3", where, f"{value!r} is no action")


def _status(value: str, where: str) -> Findings:
    if not _STATUS.fullmatch(value):
        yield Finding("RFC 3464 §2.3.4", where, f"{value!r} is not a status such as 5.1.1")


def _diagnostic(value: str, where: str) -> Findings:
    match = _TYPED.fullmatch(value)
    if not match:
        yield Finding("RFC 3464 §2.3.6", where, f"{value[:60]!r} is not of the form type; text")
    elif match[1].lower() == "smtp" and not _REPLY.match(match[2] + " "):
        rule = f"of type smtp does not begin with a reply code: {match[2][:60]!r}"
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
