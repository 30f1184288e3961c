"""Searching mail: what is typed into the search field, and what it means. Pure.

Terms are `name:value` or words; all of them must match. Values with blanks are in quotes.

    from:ann@sender.example subject:"November invoice" state:bounced after:2026-11-01
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sendback.clock import to_milliseconds
from sendback.errors import SendbackError
from sendback.mail.encoded_words import decode_words
from sendback.mail.headers import field_values
from sendback.receipt.plan import StepOutcome
from sendback.receipt.verdicts import verdicts_from_json
from sendback.store.messages.search import MailConditions, MailRow
from sendback.store.rules.processing import ProcessingState

_TERM = re.compile(r'(?:([A-Za-z]+):)?(?:"([^"]*)"|(\S+))')
_MAX_TERMS = 10
_MAX_HEADER = 64 * 1024
_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_NAMES = ("from", "to", "subject", "id", "state", "verdict", "header", "ip", "before", "after")
_VERDICT = re.compile(
    r"(spf|dkim|dmarc|spam|virus)[=-](pass|fail|gray|failed|disabled)", re.IGNORECASE
)
STATES = {
    "stored": "no rules, or all of them done",
    "queued": "rules are running or wait",
    "held": "set aside after failures",
    "dropped": "ended by the operator",
    "failed": "a rule failed or is tried again",
    "bounced": "there is a bounce",
}


class SearchError(SendbackError, ValueError):
    """What is typed is no search; `str` says why."""


@dataclass(frozen=True, slots=True)
class MailSearch:
    """A search: its terms, the conditions for the database, and the span of IDs."""

    text: str = ""
    terms: tuple[tuple[str, str], ...] = ()
    conditions: MailConditions = MailConditions()
    before: str = ""
    since: str = ""

    def accepts(self, row: MailRow) -> bool:
        """Whether a message matches all terms."""
        return all(_matches(name, value, row) for name, value in self.terms)


def parse_search(text: str) -> MailSearch:
    """Return the search. Raise `SearchError`."""
    if text.count('"') % 2:
        raise SearchError("a quote is not closed")
    found = [(m[1].lower() if m[1] else "", m[2] or m[3] or "") for m in _TERM.finditer(text)]
    terms = [(name, value) for name, value in found if value]
    if len(terms) > _MAX_TERMS:
        raise SearchError(f"a search has at most {_MAX_TERMS} terms")
    reading = _Reading()
    for name, value in terms:
        reading.add(name, value)
    return MailSearch(
        text, tuple(reading.kept), reading.conditions(), reading.before, reading.since
    )


@dataclass(slots=True)
class _Reading:
    """The terms that were read so far."""

    before: str = ""
    since: str = ""
    words: list[str] = field(default_factory=list)
    states: list[ProcessingState] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    kept: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, value: str) -> None:
        """Add a term. Raise `SearchError`."""
        if name and name not in _NAMES:
            name, value = "", f"{name}:{value}"  # a word with a colon
        if name == "before":
            self.before = _id_at(_date(value))
        elif name == "after":
            self.since = _id_at(_date(value))
        else:
            self._add_condition(name, value)
            self.kept.append((name, value.lower()))

    def _add_condition(self, name: str, value: str) -> None:
        if name == "verdict" and not _VERDICT.fullmatch(value):
            raise SearchError("a verdict is written as verdict:dmarc-fail or verdict:spf-pass")
        if name != "state":
            self.words += _words(name, value)
        elif value.lower() not in STATES:
            raise SearchError(f"there is no state {value}; states are {', '.join(STATES)}")
        elif value.lower() in {"bounced", "failed"}:
            self.flags.add(value.lower())
        elif value.lower() != "stored":
            self.states.append(ProcessingState(value.lower()))

    def conditions(self) -> MailConditions:
        """Return what the database checks."""
        return MailConditions(
            words=tuple(self.words),
            states=tuple(self.states),
            bounced="bounced" in self.flags,
            failed="failed" in self.flags,
            has_verdicts=any(name == "verdict" for name, _ in self.kept),
        )


def _words(name: str, value: str) -> list[str]:
    """Return what the database can look for: the longest ASCII word of the value."""
    if name in {"verdict", "id"} or not value.isascii():
        return []
    pieces = re.split(r"[@\s\"\\]+", value)
    longest = max(pieces, key=len)
    return [longest] if longest else []


def _date(text: str) -> datetime:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise SearchError(
            f"{text} is no date: write it as 2026-11-27 or 2026-11-27T10:00"
        ) from None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _id_at(date: datetime) -> str:
    """Return what the IDs of messages of this time and later are not less than (`ids`)."""
    bits = max(to_milliseconds(date), 0) << 2
    return "".join(_DIGITS[bits >> shift & 31] for shift in range(45, -1, -5))


def date_of_id(message_id: str) -> datetime:
    """Return the date that the ID of a received message begins with."""
    bits = 0
    for digit in message_id[:10]:
        bits = bits << 5 | max(_DIGITS.find(digit), 0)
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=bits >> 2)


def _matches(name: str, value: str, row: MailRow) -> bool:
    check = _CHECKS.get(name)
    return check is None or check(value, row)


def subject_of(row: MailRow) -> str:
    """Return the subject as a mail client shows it."""
    found = field_values(row.message.header[:_MAX_HEADER], "Subject")
    return decode_words(found[0].decode("utf-8", "replace")).strip() if found else ""


def _in_from(value: str, row: MailRow) -> bool:
    envelope = str(row.message.envelope.reverse_path).lower()
    if value == "<>":
        return not envelope
    authors = field_values(row.message.header[:_MAX_HEADER], "From")
    shown = [decode_words(author.decode("utf-8", "replace")).lower() for author in authors]
    return any(value in text for text in (envelope, *shown))


def _in_to(value: str, row: MailRow) -> bool:
    return any(value in str(entry.address).lower() for entry in row.message.envelope.recipients)


def _in_header(value: str, row: MailRow) -> bool:
    return value in row.message.header[:_MAX_HEADER].decode("utf-8", "replace").lower()


def _in_state(value: str, row: MailRow) -> bool:
    if value == "stored":
        return row.processing in {None, ProcessingState.DONE}
    return True  # the database has checked it


def _has_verdict(value: str, row: MailRow) -> bool:
    match = _VERDICT.fullmatch(value)
    if match is None or row.verdicts is None:
        return False
    statuses = verdicts_from_json(row.verdicts).statuses(scanned=True)
    wanted = "PROCESSING_FAILED" if match[2].upper() == "FAILED" else match[2].upper()
    return statuses[f"{match[1].lower()}Verdict"].value == wanted


def _anywhere(value: str, row: MailRow) -> bool:
    return (
        value in subject_of(row).lower()
        or _in_from(value, row)
        or _in_to(value, row)
        or row.message.message_id.startswith(value)
        or _in_header(value, row)
    )


_CHECKS = {
    "from": _in_from,
    "to": _in_to,
    "subject": lambda value, row: value in subject_of(row).lower(),
    "id": lambda value, row: row.message.message_id.startswith(value),
    "header": _in_header,
    "ip": lambda value, row: row.message.envelope.client.ip.startswith(value),
    "state": _in_state,
    "verdict": _has_verdict,
    "": _anywhere,
}


@dataclass(frozen=True, slots=True)
class RowState:
    """The state of a message in a word, and its tone."""

    word: str
    tone: str


def row_state(row: MailRow) -> RowState:
    """Return the state of a message for lists: the first of these that applies."""
    states = (
        (row.processing is ProcessingState.HELD, "held", "bad"),
        (row.processing is ProcessingState.DROPPED, "dropped", "warn"),
        (row.worst in {StepOutcome.FAILED, StepOutcome.EXPIRED}, "rule failed", "bad"),
        (row.worst is StepOutcome.RETRY, "rule retrying", "warn"),
        (bool(row.bounces), "bounced", "info"),
        (row.processing is ProcessingState.QUEUED, "processing", "info"),
        (row.processing is not None, "done", "ok"),
        (True, "stored", "ok"),
    )
    word, tone = next((word, tone) for applies, word, tone in states if applies)
    return RowState(word, tone)
