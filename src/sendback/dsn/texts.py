"""The human part of a bounce: which address, what happened, why, what to do, the details.

Theory of operation. A language is a TOML file of short texts. `first_line` opens the message; for
each recipient `happened` is the result; `why` and `what_to_do` are chosen by the status
(RFC 3463), by the most specific entry: `2.2` for x.2.2, then `2` for any x.2.x, then `default`.
Texts may hold placeholders, the same everywhere:

    {reporting_mta}  {arrival_date}
    {recipient}  {status}  {diagnostic}  {remote_mta}      not in first_line, report_line, details

The values of placeholders are untrusted; placeholders in them are not replaced.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from sendback.dsn.model import Action, RecipientFields, Report
from sendback.errors import SendbackError
from sendback.mail.dates import format_date

MESSAGE_PLACEHOLDERS = ("reporting_mta", "arrival_date")
PLACEHOLDERS = ("recipient", "status", "diagnostic", "remote_mta", *MESSAGE_PLACEHOLDERS)
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_STATUS_KEY = re.compile(r"default|\d{1,3}(?:\.\d{1,3})?")
_LANGUAGE = re.compile(r"[a-z]{2,8}(?:-[a-z0-9]{1,8})*")
_QUALITY = re.compile(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", re.ASCII)
_MAX_WANTED = 1000
_MAX_LANGUAGES = 20
_MAX_TAG = 35
_DIGITS = re.compile(r"[245]\.(\d+)\.(\d+)")


class TextsError(SendbackError, ValueError):
    """An invalid file of texts; `str(error)` names the entry and the reason."""


@dataclass(frozen=True, slots=True)
class Texts:
    """One language. `happened` is by action, `why` and `what_to_do` by status."""

    language: str
    first_line: str
    report_line: str
    details: str
    happened: Mapping[str, str]
    why: Mapping[str, str]
    what_to_do: Mapping[str, str]

    def explain(self, report: Report) -> str:
        """Return the whole text, with LF line ends."""
        failed = any(recipient.action is Action.FAILED for recipient in report.recipients)
        general = _message_values(report)
        lines = [_fill(self.first_line if failed else self.report_line, general)]
        technical = ["", _fill(self.details, general)]
        for recipient in report.recipients:
            values = _recipient_values(recipient) | general
            lines += ["", *(_fill(text, values) for text in self._texts_for(recipient))]
            said = values["diagnostic"] or values["status"]
            technical.append(f"  {values['recipient']}: {said}")
        return "\n".join(lines + technical)

    def _texts_for(self, recipient: RecipientFields) -> Iterator[str]:
        yield self.happened[recipient.action.value]
        if recipient.action in {Action.FAILED, Action.DELAYED}:
            yield _by_status(self.why, recipient.status)
        if recipient.action is Action.FAILED:
            yield _by_status(self.what_to_do, recipient.status)


def _message_values(report: Report) -> dict[str, str]:
    return {
        "reporting_mta": report.reporting_mta.name,
        "arrival_date": format_date(report.arrival_date) if report.arrival_date else "",
    }


def _recipient_values(recipient: RecipientFields) -> dict[str, str]:
    return {
        "recipient": str(recipient.final_recipient),
        "status": recipient.status,
        "diagnostic": (recipient.diagnostic_code or "").partition(";")[2].strip(),
        "remote_mta": recipient.remote_mta.name if recipient.remote_mta else "",
    }


def _by_status(texts: Mapping[str, str], status: str) -> str:
    match = _DIGITS.match(status)
    if match is None:
        return texts["default"]
    exact = texts.get(f"{match[1]}.{match[2]}")
    return exact or texts.get(match[1]) or texts["default"]


def _fill(text: str, values: Mapping[str, str]) -> str:
    if "{" not in text:
        return text
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def parse_texts(language: str, toml: str) -> Texts:
    """Return the texts in a language file. Raise `TextsError`."""
    if not _LANGUAGE.fullmatch(language):
        raise TextsError(f"{language!r} is not a language tag such as de or pt-br")
    try:
        content = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise TextsError(f"{language}: not TOML: {error}") from None
    table_names = ("happened", "why", "what_to_do")
    line_names = ("first_line", "report_line", "details")
    unknown = sorted(content.keys() - {*table_names, *line_names})
    if unknown:
        raise TextsError(f"{language}: unknown entry {unknown[0]}")
    tables = {name: _table(language, name, content.get(name)) for name in table_names}
    lines = {
        name: _text(language, name, content.get(name), MESSAGE_PLACEHOLDERS) for name in line_names
    }
    for action in Action:
        _text(language, f"happened.{action.value}", tables["happened"].get(action.value))
    for name in ("why", "what_to_do"):
        _text(language, f"{name}.default", tables[name].get("default"))
        odd = [key for key in tables[name] if not _STATUS_KEY.fullmatch(key)]
        if odd:
            raise TextsError(f"{language}: {name}.{odd[0]} is neither default nor of a status")
    return Texts(
        language=language,
        first_line=lines["first_line"],
        report_line=lines["report_line"],
        details=lines["details"],
        happened=tables["happened"],
        why=tables["why"],
        what_to_do=tables["what_to_do"],
    )


def _table(language: str, name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TextsError(f"{language}: the table [{name}] is missing")
    return {key: _text(language, f"{name}.{key}", text) for key, text in value.items()}


def _text(language: str, name: str, value: object, allowed: tuple[str, ...] = PLACEHOLDERS) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TextsError(f"{language}: {name} is missing or no text")
    for placeholder in _PLACEHOLDER.findall(value):
        if placeholder not in allowed:
            known = ", ".join(f"{{{known}}}" for known in allowed)
            raise TextsError(f"{language}: {name} has {{{placeholder}}}, known are {known}")
    return value.strip()


@cache
def builtin_texts() -> dict[str, Texts]:
    """Return the built-in languages, from package data, read once."""
    folder = files("sendback.dsn") / "languages"
    return {
        (language := entry.name.removesuffix(".toml")): parse_texts(
            language, entry.read_text("utf-8")
        )
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }


ENGLISH = parse_texts("en", (files("sendback.dsn") / "languages" / "en.toml").read_text("utf-8"))


def choose_texts(languages: Mapping[str, Texts], wanted: str) -> Texts | None:
    """Return the best for an Accept-Language or Content-Language value, or None.

    `de-AT, de;q=0.8` finds `de-at`, then `de` (RFC 4647 §3.4). Of an untrusted value the first 20
    languages in its first 1,000 characters count, and no tag of more than 35 characters (RFC 5646
    §4.4.1). Source: RFC 9110 §12.5.4, RFC 3282.
    """
    ranked = []
    for position, entry in enumerate(wanted[:_MAX_WANTED].lower().split(",")[:_MAX_LANGUAGES]):
        tag, _, parameter = entry.partition(";")
        ranked.append((-_quality(parameter), position, tag.strip()))
    for quality, _, tag in sorted(ranked):
        found = _find(languages, tag) if quality else None
        if found:
            return found
    return None


def _find(languages: Mapping[str, Texts], tag: str) -> Texts | None:
    """Return the texts for a tag, or for the longest beginning of it that there is one for."""
    if len(tag) > _MAX_TAG:
        return None
    while tag:
        if tag in languages:
            return languages[tag]
        tag = tag.rpartition("-")[0]
    return None


def _quality(parameter: str) -> float:
    match = _QUALITY.fullmatch(parameter)
    return float(match[1]) if match else 1.0
