"""The SMTP commands: a table with what each requires, and a function for each. Pure.

A handler gets the session's state and the command's argument. It returns the reply, or the event
that the command causes; the machine knows the reply and the state that go with each event.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from sendback.smtp import replies
from sendback.smtp.arguments import VERDICTS, parse_mail, parse_rcpt
from sendback.smtp.events import ContentStarted, RecipientReceived, TlsRequested
from sendback.smtp.replies import CommandError, Reply, make_reply
from sendback.smtp.session import SessionState

# RCPT beyond the limit of recipients is refused one by one (RFC 5321 §4.5.3.1.10), until there are
# this many times the limit.
_MAX_RECIPIENT_COMMANDS = 10
_MAX_HELO = 255

Outcome: TypeAlias = Reply | RecipientReceived | ContentStarted | TlsRequested


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition on the session, and the reply when it is not met."""

    is_met: Callable[[SessionState[Any]], bool]
    refusal: Reply


@dataclass(frozen=True, slots=True)
class Command:
    """What a command requires, in the order of the checks, and its handler.

    `is_offered`: whether HELP lists it. `is_overhead`: whether it counts towards
    `SessionLimits.overhead_commands`.
    """

    handler: Callable[[SessionState[Any], str], Outcome]
    requires: tuple[Requirement, ...] = ()
    takes_argument: bool = False
    is_offered: bool = True
    is_overhead: bool = False


def _helo(session: SessionState[Any], argument: str) -> Reply:
    _greet(session, argument)
    return _helo_reply(session.hostname)


@lru_cache(maxsize=16)
def _helo_reply(hostname: str) -> Reply:
    return make_reply(250, "", hostname)


def _ehlo(session: SessionState[Any], argument: str) -> Reply:
    _greet(session, argument)
    offers_tls = session.offers_tls and session.tls is None
    return _ehlo_reply(
        session.hostname,
        session.limits.content,
        offers_tls=offers_tls,
        offers_verdicts=session.offers_verdicts,
    )


def _greet(session: SessionState[Any], argument: str) -> None:
    if not 0 < len(argument) <= _MAX_HELO:
        raise CommandError(replies.BAD_ARGUMENT)
    session.helo = argument
    session.reset()


@lru_cache(maxsize=16)
def _ehlo_reply(hostname: str, size: int, *, offers_tls: bool, offers_verdicts: bool) -> Reply:
    lines = [
        f"{hostname} greets you",
        f"SIZE {size}",
        "8BITMIME",
        "PIPELINING",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "DSN",
        "HELP",
    ]
    if offers_verdicts:
        lines.append(VERDICTS)
    if offers_tls:
        lines.append("STARTTLS")
    return Reply(250, "", tuple(lines))


def _mail(session: SessionState[Any], argument: str) -> Reply:
    mail = parse_mail(argument, verdicts=session.offers_verdicts)
    if mail.size is not None and mail.size > session.limits.content:
        raise CommandError(replies.TOO_LARGE)
    if (mail.size or 1) > session.space.octets:
        raise CommandError(replies.NO_STORAGE)
    session.mail = mail
    return replies.SENDER_OK


def _rcpt(session: SessionState[Any], argument: str) -> Reply | RecipientReceived:
    smtputf8 = session.mail is not None and session.mail.smtputf8
    recipient = parse_rcpt(argument, session.hostname, smtputf8=smtputf8)
    session.recipient_commands += 1
    limit = session.limits.recipients
    if session.recipient_commands > _MAX_RECIPIENT_COMMANDS * limit:
        return replies.TOO_MANY_COMMANDS
    if len(session.recipients) >= limit:
        return replies.TOO_MANY_RECIPIENTS
    return RecipientReceived(recipient)


def _data(_session: SessionState[Any], _argument: str) -> ContentStarted:
    return ContentStarted()


def _rset(session: SessionState[Any], _argument: str) -> Reply:
    session.reset()
    return replies.OK


def _noop(_session: SessionState[Any], _argument: str) -> Reply:
    return replies.OK


def _quit(_session: SessionState[Any], _argument: str) -> Reply:
    return replies.BYE


def _starttls(_session: SessionState[Any], _argument: str) -> TlsRequested:
    return TlsRequested()


def _vrfy(_session: SessionState[Any], argument: str) -> Reply:
    return replies.CANNOT_VERIFY if argument else replies.BAD_ARGUMENT


def _help(_session: SessionState[Any], _argument: str) -> Reply:
    return _help_reply()


@lru_cache(maxsize=1)
def _help_reply() -> Reply:
    offered = " ".join(sorted(verb for verb, command in COMMANDS.items() if command.is_offered))
    return Reply(214, "2.0.0", ("Commands: " + offered, "See RFC 5321"))


def _not_implemented(_session: SessionState[Any], _argument: str) -> Reply:
    return replies.NOT_IMPLEMENTED


_GREETING = Requirement(lambda session: session.helo is not None, replies.GREETING_REQUIRED)
_NO_SENDER = Requirement(lambda session: session.mail is None, replies.SENDER_ALREADY_GIVEN)
_SENDER = Requirement(lambda session: session.mail is not None, replies.MAIL_REQUIRED)
_RECIPIENT = Requirement(lambda session: bool(session.recipients), replies.NO_RECIPIENTS)
_CLEAR = Requirement(lambda session: session.tls is None, replies.TLS_ALREADY)
_TLS_OFFERED = Requirement(lambda session: session.offers_tls, replies.NOT_IMPLEMENTED)

_UNIMPLEMENTED = Command(_not_implemented, takes_argument=True, is_offered=False)

COMMANDS: dict[str, Command] = {
    "HELO": Command(_helo, takes_argument=True, is_overhead=True),
    "EHLO": Command(_ehlo, takes_argument=True, is_overhead=True),
    "MAIL": Command(_mail, requires=(_GREETING, _NO_SENDER), takes_argument=True),
    "RCPT": Command(_rcpt, requires=(_SENDER,), takes_argument=True),
    "DATA": Command(_data, requires=(_SENDER, _RECIPIENT)),
    "RSET": Command(_rset, is_overhead=True),
    "NOOP": Command(_noop, takes_argument=True, is_overhead=True),
    "QUIT": Command(_quit),
    "STARTTLS": Command(_starttls, requires=(_CLEAR, _TLS_OFFERED)),
    "VRFY": Command(_vrfy, takes_argument=True, is_overhead=True),
    "HELP": Command(_help, takes_argument=True, is_overhead=True),
    "EXPN": _UNIMPLEMENTED,
    "AUTH": _UNIMPLEMENTED,
    "BDAT": _UNIMPLEMENTED,
    "ETRN": _UNIMPLEMENTED,
    "TURN": _UNIMPLEMENTED,
}
