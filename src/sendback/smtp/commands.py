"""MAIL and RCPT: paths and extension parameters, parsed exactly. Pure.

RFC 5321 §4.1.2 (paths), RFC 1870 (SIZE), RFC 6152 (BODY), RFC 6531 (SMTPUTF8), RFC 3461 (RET,
ENVID, NOTIFY, ORCPT). What the sender wrote is kept as it was written: case matters in all of it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from sendback.mail.address import Address, AddressError, parse_address
from sendback.mail.envelope import Notify, OriginalRecipient, Recipient, Ret, ReversePath
from sendback.smtp.replies import BAD_PARAMETER, NO_RELAYING, SMTPUTF8_NEEDED, Reply, reply


class CommandError(Exception):
    """The command is refused with this reply."""

    def __init__(self, answer: Reply) -> None:
        super().__init__(answer.lines[0])
        self.reply = answer


@dataclass(frozen=True, slots=True)
class MailCommand:
    """MAIL FROM; `size` is what the client says that the message will have, in octets."""

    reverse_path: ReversePath
    size: int | None = None
    body_8bit: bool = False
    smtputf8: bool = False
    ret: Ret | None = None
    envelope_id: str | None = None


_PATH = re.compile(r'<((?:[^<>"]|"(?:[^"\\]|\\.)*")*)>(?: +(.*))?', re.DOTALL)
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")  # RFC 3461 §4
_XTEXT_ESCAPE = re.compile(r"\+([0-9A-F]{2})")
_UTF8_ESCAPE = re.compile(r"\\x\{([0-9A-F]{2,6})\}")  # RFC 6533 §3
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]+")
_PRINTABLE = re.compile(r"[ -~]+")
MAX_ENVID = 100  # RFC 3461 §4.4
MAX_ORCPT = 500  # RFC 3461 §4.2

T = TypeVar("T", MailCommand, Recipient)


def parse_mail(argument: str) -> MailCommand:
    """What follows `MAIL `. Raises `CommandError`."""
    path, parameters = _split_path(argument, "FROM:")
    command = MailCommand(ReversePath(_reverse_path(path)))
    command = _apply(command, parameters, _MAIL_PARAMETERS)
    address = command.reverse_path.address
    if address and not str(address).isascii() and not command.smtputf8:
        raise CommandError(SMTPUTF8_NEEDED)
    return command


def parse_rcpt(argument: str, hostname: str, *, smtputf8: bool) -> Recipient:
    """What follows `RCPT `; `<postmaster>` is that of `hostname`. Raises `CommandError`."""
    path, parameters = _split_path(argument, "TO:")
    if path.lower() == "postmaster":  # RFC 5321 §4.5.1
        path = f"{path}@{hostname}"
    address = _address(path, "5.1.3")
    # This is the final host: a%b, a!b and "a@b" are plain local parts, which it alone gives a
    # meaning (RFC 5321 §2.3.11), and nothing is passed on for them.
    if not str(address).isascii() and not smtputf8:
        raise CommandError(SMTPUTF8_NEEDED)
    return _apply(Recipient(address), parameters, _RCPT_PARAMETERS)


def _split_path(argument: str, keyword: str) -> tuple[str, str]:
    if argument[: len(keyword)].upper() != keyword:
        raise CommandError(_syntax(f"Write {keyword}<address>"))
    match = _PATH.fullmatch(argument[len(keyword) :].lstrip(" "))
    if not match:
        raise CommandError(_syntax(f"Write {keyword}<address>"))
    if match[1].startswith("@"):  # source routes (RFC 5321 appendix C)
        raise CommandError(NO_RELAYING)
    return match[1], (match[2] or "").strip(" ")


def _reverse_path(path: str) -> Address | None:
    return _address(path, "5.1.7") if path else None


def _address(path: str, status: str) -> Address:
    try:
        return parse_address(path, any_dots=True)
    except AddressError:
        raise CommandError(reply(553, status, "Not a valid mail address")) from None


def _apply(command: T, parameters: str, table: dict[str, Callable[[T, str], T]]) -> T:
    seen = set()
    for parameter in filter(None, parameters.split(" ")):
        name, equals, value = parameter.partition("=")
        keyword = name.upper()
        if not _KEYWORD.fullmatch(name) or keyword in seen or (equals and not value):
            raise CommandError(BAD_PARAMETER)
        if keyword not in table:
            raise CommandError(reply(555, "5.5.4", f"Parameter {keyword[:40]} not recognized"))
        seen.add(keyword)
        command = table[keyword](command, value)
    return command


def _size(command: MailCommand, value: str) -> MailCommand:
    if not re.fullmatch(r"[0-9]{1,20}", value):
        raise CommandError(_syntax("SIZE is a number of octets"))
    return replace(command, size=int(value))


def _body(command: MailCommand, value: str) -> MailCommand:
    if value.upper() not in {"7BIT", "8BITMIME"}:
        raise CommandError(_syntax("BODY is 7BIT or 8BITMIME"))
    return replace(command, body_8bit=value.upper() == "8BITMIME")


def _smtputf8(command: MailCommand, value: str) -> MailCommand:
    if value:
        raise CommandError(_syntax("SMTPUTF8 takes no value"))
    return replace(command, smtputf8=True)


def _ret(command: MailCommand, value: str) -> MailCommand:
    if value.upper() not in Ret.__members__:
        raise CommandError(_syntax("RET is FULL or HDRS"))
    return replace(command, ret=Ret(value.upper()))


def _envid(command: MailCommand, value: str) -> MailCommand:
    if not value or len(value) > MAX_ENVID:
        raise CommandError(_syntax(f"ENVID has 1 to {MAX_ENVID} characters"))
    return replace(command, envelope_id=_decode_xtext(value, "ENVID"))


def _notify(command: Recipient, value: str) -> Recipient:
    words = value.upper().split(",")
    known = set(words) <= Notify.__members__.keys()
    if not known or len(set(words)) != len(words) or ("NEVER" in words and len(words) > 1):
        raise CommandError(_syntax("NOTIFY is NEVER, or some of SUCCESS, FAILURE, DELAY"))
    return replace(command, notify=frozenset(Notify(word) for word in words))


def _orcpt(command: Recipient, value: str) -> Recipient:
    address_type, semicolon, text = value.partition(";")
    if not semicolon or not _ADDRESS_TYPE.fullmatch(address_type) or len(value) > MAX_ORCPT:
        raise CommandError(_syntax("ORCPT is address-type;xtext"))
    decode = _decode_utf8 if address_type.lower() == "utf-8" else _decode_xtext
    return replace(command, original=OriginalRecipient(address_type, decode(text, "ORCPT")))


def _decode_xtext(text: str, name: str) -> str:
    """RFC 3461 §4; what it hides must be printable ASCII, or it could forge a DSN field."""
    decoded = _XTEXT_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    if not _XTEXT.fullmatch(text) or not _PRINTABLE.fullmatch(decoded) or not decoded.strip():
        raise CommandError(_syntax(f"{name} is xtext of printable ASCII (RFC 3461 section 4)"))
    return decoded


def _decode_utf8(text: str, name: str) -> str:
    """RFC 6533 §3: utf-8-addr-unitext, utf-8-addr-xtext, or the former as xtext."""
    try:
        decoded = _UTF8_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    except (ValueError, OverflowError):
        decoded = ""
    if not decoded.strip() or not decoded.isprintable():
        raise CommandError(_syntax(f"{name} of type utf-8 is utf-8-addr-xtext (RFC 6533)"))
    return decoded


def _syntax(text: str) -> Reply:
    return reply(501, "5.5.4", text)


_MAIL_PARAMETERS: dict[str, Callable[[MailCommand, str], MailCommand]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
    "RET": _ret,
    "ENVID": _envid,
}
_RCPT_PARAMETERS: dict[str, Callable[[Recipient, str], Recipient]] = {
    "NOTIFY": _notify,
    "ORCPT": _orcpt,
}
