"""`sendback dsn`: write, read and check delivery status notifications."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import FAILED, CommandFailedError, usage_error
from sendback.cli.files import read_json_object, read_octets
from sendback.cli.options import Json
from sendback.cli.output import print_fields, print_json, print_rows, say, write_octets

if TYPE_CHECKING:
    from sendback.dsn import Bounce, ExtensionField, ParsedDsn, Reason, RecipientFields, Report

app = typer.Typer(
    help="Write, read and check delivery status notifications (RFC 3464).", no_args_is_help=True
)

File = Annotated[Path, typer.Argument(help="The message; - is standard input.", metavar="FILE")]


@app.command("compose")
def compose_dsn(
    file: Annotated[
        Path | None,
        typer.Argument(help="A JSON description; - is standard input.", metavar="[FILE]"),
    ] = None,
    sender: Annotated[
        str | None, typer.Option("--from", help="The From: address of the bounce.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Where the bounce goes: the original's reverse-path.")
    ] = None,
    recipient: Annotated[
        list[str] | None, typer.Option(help="A recipient to bounce; repeat the option for more.")
    ] = None,
    reason: Annotated[str, typer.Option(help="The BounceType of each recipient.")] = "DoesNotExist",
    reporting_mta: Annotated[
        str | None, typer.Option(help="The host that reports.", show_default="the machine's name")
    ] = None,
    original: Annotated[
        Path | None, typer.Option(help="File of the original message, to return its header.")
    ] = None,
    return_full: Annotated[bool, typer.Option(help="Return the whole original message.")] = False,
    explanation: Annotated[
        str | None, typer.Option(help="Human-readable text instead of the generated one.")
    ] = None,
    language: Annotated[str, typer.Option(help="Language of the generated text.")] = "en",
) -> None:
    """Write a bounce to standard output, from options or a JSON description.

    The JSON members have the names of the options; `recipients` is a list of objects:

    {"from": "postmaster@example.com", "to": "ann@sender.example", "recipients": [{"recipient":
    "bob@example.com", "action": "failed", "status": "5.2.2", "diagnostic_code": "smtp; 552 full"}]}
    """
    given: dict[str, Any] = {
        "from": sender,
        "to": to,
        "recipients": [{"recipient": address, "reason": reason} for address in recipient or ()],
        "reporting_mta": reporting_mta,
        "original": str(original) if original else None,
        "return_full": return_full,
        "explanation": explanation,
        "language": language,
    }
    if file is not None:
        described = read_json_object(file)
        _check_members(described, _MEMBERS, "the description")
        given |= described
    write_octets(_compose(given))


@app.command("parse")
def parse_dsn(file: File, as_json: Json = False) -> None:
    """Print the fields of a bounce from any mail server, as a table or as JSON."""
    from sendback.dsn import NotADsnError, parse, status_text

    try:
        parsed = parse(read_octets(file))
    except NotADsnError as error:
        raise CommandFailedError(f"{file}: {error}") from None
    if as_json:
        print_json(_as_dict(parsed))
        return
    print_fields(dict(parsed.message_fields), as_json=False)
    for number, recipient in enumerate(parsed.recipients, 1):
        say(f"\nRecipient {number}")
        fields = dict(recipient.fields)
        if meaning := status_text(recipient.status):
            fields["Status"] = f"{recipient.status}  ({meaning})"
        print_fields(fields, as_json=False)
    say("\n" + "\n".join(parsed.explanation.splitlines()))


@app.command("check")
def check_dsn(file: File, as_json: Json = False) -> None:
    """Check a bounce against the standards, and print each violation.

    Exit code 1 if there is one.
    """
    from sendback.dsn import check

    findings = check(_read_message(file))
    rows = [
        {"section": finding.section, "where": finding.where, "rule": finding.rule}
        for finding in findings
    ]
    if rows or as_json:
        print_rows(rows, ("section", "where", "rule"), as_json=as_json)
    else:
        say("No violation found.")
    if rows:
        raise typer.Exit(FAILED)


def _read_message(file: Path) -> bytes:
    """Return the message with CR LF line ends: saved messages often have LF."""
    content = read_octets(file)
    return content if b"\r\n" in content else content.replace(b"\n", b"\r\n")


# --- composing ------------------------------------------------------------------------------

# The members of the JSON description, and their types. A member that is null counts as absent.
_TEXT = (str, "a string")
_FLAG = (bool, "true or false")
_LIST = (list, "a list")
_OBJECT = (dict, "an object")
_MEMBERS: Mapping[str, tuple[type, str]] = {
    "from": _TEXT,
    "to": _TEXT,
    "recipients": _LIST,
    "reporting_mta": _TEXT,
    "original": _TEXT,
    "return_full": _FLAG,
    "explanation": _TEXT,
    "language": _TEXT,
    "message_id": _TEXT,
    "date": _TEXT,
    "arrival_date": _TEXT,
    "original_envelope_id": _TEXT,
    "extension_fields": _OBJECT,
}
_RECIPIENT_MEMBERS: Mapping[str, tuple[type, str]] = {
    "recipient": _TEXT,
    "reason": _TEXT,
    "action": _TEXT,
    "status": _TEXT,
    "diagnostic_code": _TEXT,
    "original_recipient": _TEXT,
    "remote_mta": _TEXT,
    "last_attempt_date": _TEXT,
    "will_retry_until": _TEXT,
    "extension_fields": _OBJECT,
}


def _check_members(value: object, members: Mapping[str, tuple[type, str]], where: str) -> None:
    """Raise `BadParameter` unless the value is an object of these members, each of its type."""
    if not isinstance(value, dict):
        raise usage_error(f"{where} is not a JSON object")
    for name, member in value.items():
        if name not in members:
            raise usage_error(
                f"{where} has the unknown member {name!r}; allowed are {', '.join(members)}"
            )
        kind, type_name = members[name]
        if member is not None and not isinstance(member, kind):
            raise usage_error(f"{where}: {name} must be {type_name}, not {type(member).__name__}")


def _compose(given: Mapping[str, Any]) -> bytes:
    """Return the bounce. Raise `BadParameter` if the description is invalid."""
    from sendback.dsn import DsnError, builtin_texts, compose
    from sendback.mail.address import AddressError

    languages = builtin_texts()
    language = given["language"] or "en"
    if language not in languages:
        raise usage_error(
            f"language must be one of {', '.join(sorted(languages))}, not {language!r}"
        )
    for name in ("from", "to", "recipients"):
        if not given[name]:
            raise usage_error(f"{name} is missing: give it as an option or in the JSON")
    try:
        bounce = _bounce(given)
        return compose(bounce, f"=_{os.urandom(16).hex()}", languages[language])
    except (DsnError, AddressError) as error:
        raise usage_error(str(error)) from None


def _bounce(given: Mapping[str, Any]) -> "Bounce":
    import socket

    from sendback.dsn import Bounce, MtaName, ReturnedHeaders, ReturnedMessage, parse_address
    from sendback.ids import RandomIds
    from sendback.mail.headers import header_section, message_id

    now = datetime.now(UTC)
    host = given["reporting_mta"] or socket.gethostname()
    mta = MtaName.from_text(host if ";" in host else f"dns; {host}", "Reporting-MTA")
    original = _read_message(Path(given["original"])) if given["original"] else b""
    header = header_section(original)
    return Bounce(
        sender=given["from"],
        to=parse_address(given["to"], any_dots=True),
        date=_date(given, "date") or now,
        message_id=given.get("message_id") or f"{RandomIds().outbound_message(now)}@{mta.name}",
        report=_report(given, mta),
        explanation=given["explanation"],
        in_reply_to=message_id(header),
        returned=ReturnedMessage(original) if given["return_full"] else ReturnedHeaders(header),
    )


def _report(given: Mapping[str, Any], reporting_mta: Any) -> "Report":
    from sendback.dsn import Report

    return Report(
        reporting_mta=reporting_mta,
        recipients=tuple(
            _recipient(item, f"recipient {number}")
            for number, item in enumerate(given["recipients"], 1)
        ),
        original_envelope_id=given.get("original_envelope_id"),
        arrival_date=_date(given, "arrival_date"),
        extension_fields=_extensions(given, "the description"),
    )


def _recipient(item: Any, where: str) -> "RecipientFields":
    from sendback.dsn import MtaName, OriginalRecipient, RecipientFields, parse_address

    _check_members(item, _RECIPIENT_MEMBERS, where)
    if not item.get("recipient"):
        raise usage_error(f"{where}: recipient is missing")
    reason = _reason(item, where)
    original = item.get("original_recipient")
    if original and ";" not in original:
        raise usage_error(f"{where}: original_recipient must be of the form 'type; address'")
    remote = item.get("remote_mta")
    return RecipientFields(
        final_recipient=parse_address(item["recipient"], any_dots=True),
        action=_action(item, where),
        status=item.get("status") or (reason.status if reason else ""),
        original_recipient=OriginalRecipient(*original.split(";", 1)) if original else None,
        remote_mta=MtaName.from_text(remote, "Remote-MTA") if remote else None,
        diagnostic_code=item.get("diagnostic_code") or (reason.diagnostic_code if reason else None),
        last_attempt_date=_date(item, "last_attempt_date"),
        will_retry_until=_date(item, "will_retry_until"),
        extension_fields=_extensions(item, where),
    )


def _reason(item: Mapping[str, Any], where: str) -> "Reason | None":
    from sendback.dsn import REASONS

    name = item.get("reason")
    if name is None:
        return None
    if name not in REASONS:
        raise usage_error(f"{where}: reason must be one of {', '.join(REASONS)}, not {name!r}")
    return REASONS[name]


def _action(item: Mapping[str, Any], where: str) -> Any:
    from sendback.dsn import Action

    name = item.get("action") or "failed"
    if name not in list(Action):
        raise usage_error(f"{where}: action must be one of {', '.join(Action)}, not {name!r}")
    return Action(name)


def _extensions(item: Mapping[str, Any], where: str) -> "tuple[ExtensionField, ...]":
    from sendback.dsn import ExtensionField

    given = item.get("extension_fields") or {}
    for name, value in given.items():
        if not isinstance(value, str):
            raise usage_error(f"{where}: the extension field {name!r} must be a string")
    return tuple(ExtensionField(name, value) for name, value in given.items())


def _date(item: Mapping[str, Any], name: str) -> datetime | None:
    """Return the date in UTC. A date without a time zone is read as UTC."""
    text = item.get(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return zoned.astimezone(UTC)
    except (ValueError, OverflowError):
        example = "2026-03-01T12:00:00"
        raise usage_error(f"{name} must be a date such as {example}, not {text!r}") from None


# --- reading --------------------------------------------------------------------------------


def _as_dict(parsed: "ParsedDsn") -> dict[str, Any]:
    return {
        "header": [list(field) for field in parsed.header],
        "message": dict(parsed.message_fields),
        "recipients": [
            {
                "final_recipient": recipient.final_recipient,
                "action": recipient.action,
                "status": recipient.status,
                "fields": dict(recipient.fields),
            }
            for recipient in parsed.recipients
        ],
        "explanation": parsed.explanation,
        "returned_type": parsed.returned_type,
        "returned": parsed.returned.decode("utf-8", "replace"),
    }
