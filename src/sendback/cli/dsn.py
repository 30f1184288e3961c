"""`sendback dsn`: writing, reading and judging delivery status notifications."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import FAILED, CommandFailedError, usage_error
from sendback.cli.options import Json
from sendback.cli.output import print_fields, print_json, print_rows, printable

if TYPE_CHECKING:
    from sendback.dsn import Bounce, ParsedDsn, RecipientFields, Report

app = typer.Typer(
    help="Write, read and judge delivery status notifications (RFC 3464).", no_args_is_help=True
)

File = Annotated[Path, typer.Argument(help="The message; - is standard input.", metavar="FILE")]


@app.command("compose")
def compose_dsn(
    file: Annotated[
        Path | None,
        typer.Argument(help="A JSON description; - is standard input.", metavar="[FILE]"),
    ] = None,
    sender: Annotated[str | None, typer.Option("--from", help="The From: of the bounce.")] = None,
    to: Annotated[str | None, typer.Option(help="The original's reverse-path.")] = None,
    recipient: Annotated[
        list[str] | None, typer.Option(help="A recipient that bounces; may be repeated.")
    ] = None,
    reason: Annotated[str, typer.Option(help="A BounceType, for each recipient.")] = "DoesNotExist",
    reporting_mta: Annotated[
        str | None, typer.Option(help="Host name.", show_default="the machine's name")
    ] = None,
    original: Annotated[
        Path | None, typer.Option(help="The original message, whose headers go back.")
    ] = None,
    return_full: Annotated[bool, typer.Option(help="Return the whole original.")] = False,
    explanation: Annotated[str | None, typer.Option(help="The text for people.")] = None,
    language: Annotated[str, typer.Option(help="Of the generated text for people.")] = "en",
) -> None:
    """Write a bounce to standard output, from flags or from a JSON description.

    The JSON has the same names as the flags, and recipients as objects:

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
        given |= _read_json(file)
    _write(_composed(given))


@app.command("parse")
def parse_dsn(file: File, as_json: Json = False) -> None:
    """Read a bounce, anyone's: its fields as a table, or as JSON."""
    from sendback.dsn import NotADsnError, parse, status_text

    try:
        parsed = parse(_read_message(file))
    except NotADsnError as error:
        raise CommandFailedError(f"{file}: {error}") from None
    if as_json:
        print_json(_as_dict(parsed))
        return
    print_fields(dict(parsed.message_fields), as_json=False)
    for number, recipient in enumerate(parsed.recipients, 1):
        typer.echo(f"\nRecipient {number}")
        fields = dict(recipient.fields)
        if meaning := status_text(recipient.status):
            fields["Status"] = f"{recipient.status}  ({meaning})"
        print_fields(fields, as_json=False)
    typer.echo("\n" + "\n".join(printable(line) for line in parsed.explanation.splitlines()))


@app.command("check")
def check_dsn(file: File, as_json: Json = False) -> None:
    """Judge a bounce against the standards; exit code 1 when something is found."""
    from sendback.dsn import check

    findings = check(_read_message(file))
    rows = [
        {"section": finding.section, "where": finding.where, "rule": finding.rule}
        for finding in findings
    ]
    if rows or as_json:
        print_rows(rows, ("section", "where", "rule"), as_json=as_json)
    else:
        typer.echo("Nothing found.")
    if rows:
        raise typer.Exit(FAILED)


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise usage_error(f"{file} cannot be read: {error.strerror}") from None


def _read_message(file: Path) -> bytes:
    """Messages are saved with LF more often than not; on the wire they had CR LF."""
    content = _read(file)
    return content if b"\r\n" in content else content.replace(b"\n", b"\r\n")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(file))
    except ValueError as error:
        raise usage_error(f"{file} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise usage_error(f"{file} is no JSON object")
    return value


def _write(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _composed(given: dict[str, Any]) -> bytes:
    from sendback.dsn import DsnError, builtin_texts, compose
    from sendback.mail.address import AddressError

    languages = builtin_texts()
    if given["language"] not in languages:
        raise usage_error(f"language is one of {', '.join(sorted(languages))}")
    for name in ("from", "to", "recipients"):
        if not given[name]:
            raise usage_error(f"{name} is missing: give it as a flag or in the JSON")
    try:
        bounce = _bounce(given)
        return compose(bounce, f"=_{os.urandom(16).hex()}", languages[given["language"]])
    except (DsnError, AddressError) as error:
        raise usage_error(str(error)) from None
    except (KeyError, TypeError, ValueError) as error:
        raise usage_error(f"the description is not right: {error!r}") from None


def _bounce(given: dict[str, Any]) -> "Bounce":
    import socket

    from sendback.dsn import Bounce, ReturnedHeaders, ReturnedMessage, parse_address
    from sendback.ids import RandomIds
    from sendback.mail.headers import header_section, message_id

    now = datetime.now(UTC)
    host = given["reporting_mta"] or socket.gethostname()
    original = _read_message(Path(given["original"])) if given["original"] else b""
    header = header_section(original)
    return Bounce(
        sender=given["from"],
        to=parse_address(given["to"], any_dots=True),
        date=_date(given.get("date")) or now,
        message_id=given.get("message_id") or f"{RandomIds().outbound_message(now)}@{host}",
        report=_report(given, host),
        explanation=given["explanation"],
        in_reply_to=message_id(header),
        returned=ReturnedMessage(original) if given["return_full"] else ReturnedHeaders(header),
    )


def _report(given: dict[str, Any], host: str) -> "Report":
    from sendback.dsn import ExtensionField, MtaName, Report

    return Report(
        reporting_mta=MtaName.from_text(host if ";" in host else f"dns; {host}", "Reporting-MTA"),
        recipients=tuple(_recipient(item) for item in given["recipients"]),
        original_envelope_id=given.get("original_envelope_id"),
        arrival_date=_date(given.get("arrival_date")),
        extension_fields=tuple(
            ExtensionField(name, value)
            for name, value in (given.get("extension_fields") or {}).items()
        ),
    )


def _recipient(item: dict[str, Any]) -> "RecipientFields":
    from sendback.dsn import (
        REASONS,
        Action,
        ExtensionField,
        MtaName,
        OriginalRecipient,
        RecipientFields,
        parse_address,
    )

    reason = REASONS[item["reason"]] if "reason" in item else None
    original = item.get("original_recipient")
    remote = item.get("remote_mta")
    return RecipientFields(
        final_recipient=parse_address(item["recipient"], any_dots=True),
        action=Action(item.get("action", "failed")),
        status=item.get("status") or (reason.status if reason else ""),
        original_recipient=OriginalRecipient(*original.split(";", 1)) if original else None,
        remote_mta=MtaName.from_text(remote, "Remote-MTA") if remote else None,
        diagnostic_code=item.get("diagnostic_code") or (reason.diagnostic_code if reason else None),
        last_attempt_date=_date(item.get("last_attempt_date")),
        will_retry_until=_date(item.get("will_retry_until")),
        extension_fields=tuple(
            ExtensionField(name, value)
            for name, value in (item.get("extension_fields") or {}).items()
        ),
    )


def _date(text: str | None) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


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
