"""The arguments of MAIL and RCPT: paths and extension parameters, parsed strictly. Pure.

RFC 5321 §4.1.2 (paths), RFC 1870 (SIZE), RFC 6152 (BODY), RFC 6531 (SMTPUTF8), RFC 3461 (RET,
ENVID, NOTIFY, ORCPT). Values keep their case, which is significant.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from sendback.mail.address import Address, AddressError, parse_address
from sendback.mail.envelope import (
    GivenVerdicts,
    Notify,
    OriginalRecipient,
    Recipient,
    Ret,
    ReversePath,
)
from sendback.receipt.given_verdicts import GivenVerdictsError, parse_given
from sendback.smtp.replies import (
    BAD_ARGUMENT,
    NO_RELAYING,
    SMTPUTF8_REQUIRED,
    CommandError,
    Reply,
    make_reply,
)


@dataclass(frozen=True, slots=True)
class MailArguments:
    """The arguments of MAIL; `size` is the message size that the client declares, in octets."""

    reverse_path: ReversePath
    size: int | None = None
    body_8bit: bool = False
    smtputf8: bool = False
    ret: Ret | None = None
    envelope_id: str | None = None
    verdicts: GivenVerdicts | None = None


# The extension of servers with the setting `test_verdicts`.
VERDICTS = "XSENDBACK-VERDICTS"

_PATH = re.compile(r'<((?:[^<>"]|"(?:[^"\\]|\\.)*")*)>(?: +(.*))?', re.DOTALL)
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")  # RFC 3461 §4
_XTEXT_ESCAPE = re.compile(r"\+([0-9A-F]{2})")
_UTF8_ESCAPE = re.compile(r"\\x\{([0-9A-F]{2,6})\}")  # RFC 6533 §3
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]+")
_PRINTABLE = re.compile(r"[ -~]+")
MAX_ENVID = 100  # RFC 3461 §4.4
MAX_ORCPT = 500  # RFC 3461 §4.2

T = TypeVar("T", MailArguments, Recipient)


def parse_mail(argument: str, *, verdicts: bool = False) -> MailArguments:
    """Parse what follows `MAIL `; `verdicts`: `XSENDBACK-VERDICTS` is known.

    Raises `CommandError`.
    """
    path, parameters = _split_path(argument, "FROM:")
    mail = MailArguments(ReversePath(_reverse_path(path)))
    table = _MAIL_PARAMETERS_OF_TESTS if verdicts else _MAIL_PARAMETERS
    mail = _apply(mail, parameters, table)
    address = mail.reverse_path.address
    if address and not str(address).isascii() and not mail.smtputf8:
        raise CommandError(SMTPUTF8_REQUIRED)
    return mail


def parse_rcpt(argument: str, hostname: str, *, smtputf8: bool) -> Recipient:
    """Parse what follows `RCPT `; `<postmaster>` is at `hostname`. Raises `CommandError`."""
    path, parameters = _split_path(argument, "TO:")
    if path.lower() == "postmaster":  # RFC 5321 §4.5.1
        path = f"{path}@{hostname}"
    address = _address(path, "5.1.3")
    # This is the final host: only it interprets the local parts a%b, a!b and "a@b", as mailboxes
    # (RFC 5321 §2.3.11). It relays nothing.
    if not str(address).isascii() and not smtputf8:
        raise CommandError(SMTPUTF8_REQUIRED)
    return _apply(Recipient(address), parameters, _RCPT_PARAMETERS)


def _split_path(argument: str, keyword: str) -> tuple[str, str]:
    if argument[: len(keyword)].upper() != keyword:
        raise CommandError(_syntax(f"Syntax: {keyword}<address>"))
    match = _PATH.fullmatch(argument[len(keyword) :].lstrip(" "))
    if not match:
        raise CommandError(_syntax(f"Syntax: {keyword}<address>"))
    if match[1].startswith("@"):  # source routes (RFC 5321 appendix C)
        raise CommandError(NO_RELAYING)
    return match[1], (match[2] or "").strip(" ")


def _reverse_path(path: str) -> Address | None:
    return _address(path, "5.1.7") if path else None


def _address(path: str, status: str) -> Address:
    try:
        return parse_address(path, any_dots=True)
    except AddressError:
        raise CommandError(make_reply(553, status, "Invalid mail address")) from None


def _apply(arguments: T, parameters: str, table: dict[str, Callable[[T, str], T]]) -> T:
    if not parameters:
        return arguments
    seen = set()
    for parameter in filter(None, parameters.split(" ")):
        name, equals, value = parameter.partition("=")
        keyword = name.upper()
        if not _KEYWORD.fullmatch(name) or keyword in seen or (equals and not value):
            raise CommandError(BAD_ARGUMENT)
        if keyword not in table:
            raise CommandError(make_reply(555, "5.5.4", f"Parameter {keyword[:40]} not recognized"))
        seen.add(keyword)
        arguments = table[keyword](arguments, value)
    return arguments


def _size(mail: MailArguments, value: str) -> MailArguments:
    if not re.fullmatch(r"[0-9]{1,20}", value):
        raise CommandError(_syntax("SIZE must be a number of octets"))
    return replace(mail, size=int(value))


def _body(mail: MailArguments, value: str) -> MailArguments:
    if value.upper() not in {"7BIT", "8BITMIME"}:
        raise CommandError(_syntax("BODY must be 7BIT or 8BITMIME"))
    return replace(mail, body_8bit=value.upper() == "8BITMIME")


def _smtputf8(mail: MailArguments, value: str) -> MailArguments:
    if value:
        raise CommandError(_syntax("SMTPUTF8 takes no value"))
    return replace(mail, smtputf8=True)


def _ret(mail: MailArguments, value: str) -> MailArguments:
    if value.upper() not in Ret.__members__:
        raise CommandError(_syntax("RET must be FULL or HDRS"))
    return replace(mail, ret=Ret(value.upper()))


def _envid(mail: MailArguments, value: str) -> MailArguments:
    if not value or len(value) > MAX_ENVID:
        raise CommandError(_syntax(f"ENVID must have 1 to {MAX_ENVID} characters"))
    return replace(mail, envelope_id=_decode_xtext(value, "ENVID"))


def _verdicts(mail: MailArguments, value: str) -> MailArguments:
    try:
        return replace(mail, verdicts=parse_given(value))
    except GivenVerdictsError as error:
        raise CommandError(_syntax(f"{VERDICTS}: {error}")) from None


def _notify(recipient: Recipient, value: str) -> Recipient:
    words = value.upper().split(",")
    known = set(words) <= Notify.__members__.keys()
    if not known or len(set(words)) != len(words) or ("NEVER" in words and len(words) > 1):
        raise CommandError(_syntax("NOTIFY must be NEVER or a list of SUCCESS, FAILURE, DELAY"))
    return replace(recipient, notify=frozenset(Notify(word) for word in words))


def _orcpt(recipient: Recipient, value: str) -> Recipient:
    address_type, semicolon, text = value.partition(";")
    if not semicolon or not _ADDRESS_TYPE.fullmatch(address_type) or len(value) > MAX_ORCPT:
        raise CommandError(_syntax("ORCPT must be address-type;xtext"))
    decode = _decode_utf8 if address_type.lower() == "utf-8" else _decode_xtext
    return replace(recipient, original=OriginalRecipient(address_type, decode(text, "ORCPT")))


def _decode_xtext(text: str, name: str) -> str:
    """Decode xtext (RFC 3461 §4) to printable ASCII: other characters could forge a DSN field."""
    decoded = _XTEXT_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    if not _XTEXT.fullmatch(text) or not _PRINTABLE.fullmatch(decoded) or not decoded.strip():
        raise CommandError(_syntax(f"{name} must be xtext of printable ASCII (RFC 3461 section 4)"))
    return decoded


def _decode_utf8(text: str, name: str) -> str:
    """Decode RFC 6533 §3: utf-8-addr-unitext, utf-8-addr-xtext, or unitext as xtext."""
    try:
        decoded = _UTF8_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    except (ValueError, OverflowError):
        decoded = ""
    if not decoded.strip() or not decoded.isprintable():
        raise CommandError(_syntax(f"{name} of type utf-8 must be utf-8-addr-xtext (RFC 6533)"))
    return decoded


def _syntax(text: str) -> Reply:
    return make_reply(501, "5.5.4", text)


_MAIL_PARAMETERS: dict[str, Callable[[MailArguments, str], MailArguments]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
    "RET": _ret,
    "ENVID": _envid,
}
_MAIL_PARAMETERS_OF_TESTS = {**_MAIL_PARAMETERS, VERDICTS: _verdicts}
_RCPT_PARAMETERS: dict[str, Callable[[Recipient, str], Recipient]] = {
    "NOTIFY": _notify,
    "ORCPT": _orcpt,
}
