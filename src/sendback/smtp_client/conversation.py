"""The commands of an SMTP client and the meaning of the replies. Pure: no sockets, no clock.

Theory of operation. A conversation is a generator. It yields an `Exchange` (octets to send, the
number of replies to wait for, the stage) and is sent these replies; its return value is its
result. `connection.Connection.run` runs conversations. Tests can run every order of events without
a network.

If the server supports PIPELINING (RFC 2920), `transact` is one exchange: MAIL, RCPT and DATA are
sent together, or with CHUNKING (RFC 3030) MAIL, RCPT and the whole content. The replies to all
pipelined commands are read even if the first is refused, so that the session can be reused.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from sendback.errors import SendbackError
from sendback.smtp_client.content import dot_stuffed
from sendback.smtp_client.replies import ServerReply

T = TypeVar("T")

# Larger content is sent with DATA, after the recipient has been accepted.
MAX_BDAT_OCTETS = 256 * 1024
_MINUTE = 60.0


class Stage(StrEnum):
    """The stage of a session."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "content"


# Timeouts for the replies, in seconds (RFC 5321 §4.5.3.2).
STAGE_TIMEOUTS: Mapping[Stage, float] = {
    Stage.CONNECT: 0.5 * _MINUTE,
    Stage.GREETING: 5 * _MINUTE,
    Stage.EHLO: 5 * _MINUTE,
    Stage.STARTTLS: 5 * _MINUTE,
    Stage.AUTH: 5 * _MINUTE,
    Stage.MAIL: 5 * _MINUTE,
    Stage.RCPT: 5 * _MINUTE,
    Stage.DATA: 2 * _MINUTE,
    Stage.CONTENT: 10 * _MINUTE,
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """Octets to send, the number of replies to wait for, and the stage."""

    octets: bytes
    replies: int
    stage: Stage


Conversation = Generator[Exchange, list[ServerReply], T]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The keywords of the EHLO reply, upper case, with their parameters (RFC 5321 §4.1.1.1)."""

    keywords: Mapping[str, str]

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def max_size(self) -> int:
        """The largest message in octets; 0 means no limit (RFC 1870)."""
        text = self.keywords.get("SIZE", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0  # noqa: PLR2004

    @property
    def auth_mechanisms(self) -> frozenset[str]:
        return frozenset(self.keywords.get("AUTH", "").upper().split())


@dataclass(frozen=True, slots=True)
class StageReply:
    """The server's reply at a stage."""

    stage: Stage
    reply: ServerReply


class RefusedError(SendbackError):
    """The server refused a command and the session cannot continue."""

    def __init__(self, refusal: StageReply) -> None:
        super().__init__(f"{refusal.stage}: {refusal.reply}")
        self.refusal = refusal


class AuthenticationError(SendbackError):
    """No AUTH mechanism that the server offers can be used; `str` lists those offered."""


@dataclass(frozen=True, slots=True)
class OutgoingMail:
    """The recipient and the content of a transaction; the reverse-path is null."""

    recipient: str
    content: bytes
    smtputf8: bool = False


def greet(hostname: str) -> Conversation[Capabilities]:
    """Wait for the greeting, send EHLO and return the capabilities. Raises `RefusedError`."""
    (greeting,) = yield Exchange(b"", 1, Stage.GREETING)
    expect(greeting, Stage.GREETING)
    return (yield from hello(hostname))


def hello(hostname: str) -> Conversation[Capabilities]:
    """Send EHLO, or HELO if EHLO is unknown; return the capabilities. Raises `RefusedError`."""
    (reply,) = yield Exchange(f"EHLO {hostname}\r\n".encode("ascii"), 1, Stage.EHLO)
    if reply.is_permanent and reply.code != 521:  # noqa: PLR2004 - RFC 7504: takes no mail
        (reply,) = yield Exchange(f"HELO {hostname}\r\n".encode("ascii"), 1, Stage.EHLO)
        expect(reply, Stage.EHLO)
        return Capabilities({})
    expect(reply, Stage.EHLO)
    pairs = (line.partition(" ") for line in reply.lines[1:])
    return Capabilities({name.upper(): rest.strip() for name, _, rest in pairs if name})


def request_tls() -> Conversation[None]:
    """Send STARTTLS and wait for the 220 (RFC 3207). Raises `RefusedError`."""
    (reply,) = yield Exchange(b"STARTTLS\r\n", 1, Stage.STARTTLS)
    expect(reply, Stage.STARTTLS)


def authenticate(offered: Capabilities, username: str, password: str) -> Conversation[None]:
    """Log in by CRAM-MD5, PLAIN or LOGIN, the first that is offered (RFC 4954).

    Raises `RefusedError`, `AuthenticationError`.
    """
    mechanisms = offered.auth_mechanisms
    if "CRAM-MD5" in mechanisms:
        yield from _cram_md5(username, password)
    elif "PLAIN" in mechanisms:
        text = f"\0{username}\0{password}".encode()
        yield from _auth_step(b"AUTH PLAIN " + base64.b64encode(text), final=True)
    elif "LOGIN" in mechanisms:
        yield from _auth_step(b"AUTH LOGIN", final=False)
        yield from _auth_step(base64.b64encode(username.encode()), final=False)
        yield from _auth_step(base64.b64encode(password.encode()), final=True)
    else:
        names = ", ".join(sorted(mechanisms)) or "none"
        raise AuthenticationError(f"the server offers no usable AUTH mechanism: {names}")


def transact(capabilities: Capabilities, outgoing: OutgoingMail) -> Conversation[StageReply]:
    """Send one message and return the deciding reply: the first refusal, or the last reply.

    The session can be reused unless that reply is a 421.
    """
    mail = _mail_command(capabilities, outgoing)
    rcpt = f"RCPT TO:<{outgoing.recipient}>{_rcpt_options(capabilities)}\r\n".encode()
    if "PIPELINING" not in capabilities:
        return (yield from _step_by_step(mail, rcpt, outgoing.content))
    if "CHUNKING" in capabilities and len(outgoing.content) <= MAX_BDAT_OCTETS:
        return (yield from _chunked(mail, rcpt, outgoing.content))
    return (yield from _pipelined(mail, rcpt, outgoing.content))


def reset() -> Conversation[ServerReply]:
    """Send RSET: the server discards the refused transaction."""
    (reply,) = yield Exchange(b"RSET\r\n", 1, Stage.MAIL)
    return reply


def quit_session() -> Conversation[None]:
    """Send QUIT and ignore the reply."""
    yield Exchange(b"QUIT\r\n", 1, Stage.EHLO)


# --- the three ways to make a transaction ---------------------------------------------------------


def _chunked(mail: bytes, rcpt: bytes, content: bytes) -> Conversation[StageReply]:
    octets = mail + rcpt + b"BDAT %d LAST\r\n" % len(content) + content
    replies = yield Exchange(octets, 3, Stage.CONTENT)
    return _first_refusal(replies, (Stage.MAIL, Stage.RCPT, Stage.CONTENT))


def _pipelined(mail: bytes, rcpt: bytes, content: bytes) -> Conversation[StageReply]:
    replies = yield Exchange(mail + rcpt + b"DATA\r\n", 3, Stage.DATA)
    deciding = _first_refusal(replies, (Stage.MAIL, Stage.RCPT, Stage.DATA))
    if replies[2].code != 354:  # noqa: PLR2004 - RFC 5321 §4.1.1.4
        return _never_positive(deciding)
    if not all(reply.is_positive for reply in replies[:2]):
        # RFC 2920 §3.1: after a 354 the server waits for content, even without a recipient.
        yield Exchange(b".\r\n", 1, Stage.CONTENT)
        return deciding
    (reply,) = yield Exchange(dot_stuffed(content), 1, Stage.CONTENT)
    return StageReply(Stage.CONTENT, reply)


def _step_by_step(mail: bytes, rcpt: bytes, content: bytes) -> Conversation[StageReply]:
    for command, stage in ((mail, Stage.MAIL), (rcpt, Stage.RCPT)):
        (reply,) = yield Exchange(command, 1, stage)
        if not reply.is_positive:
            return StageReply(stage, reply)
    (reply,) = yield Exchange(b"DATA\r\n", 1, Stage.DATA)
    if reply.code != 354:  # noqa: PLR2004 - RFC 5321 §4.1.1.4
        return _never_positive(StageReply(Stage.DATA, reply))
    (reply,) = yield Exchange(dot_stuffed(content), 1, Stage.CONTENT)
    return StageReply(Stage.CONTENT, reply)


def _first_refusal(replies: list[ServerReply], stages: tuple[Stage, ...]) -> StageReply:
    for stage, reply in zip(stages, replies, strict=True):
        if not reply.is_positive:
            return StageReply(stage, reply)
    return StageReply(stages[-1], replies[-1])


def _never_positive(deciding: StageReply) -> StageReply:
    """Return a 451 in place of a positive reply to DATA: no content has been sent."""
    if deciding.reply.is_positive:
        text = f"the reply to DATA was {deciding.reply}"
        return StageReply(deciding.stage, ServerReply(451, (text,)))
    return deciding


# --- commands -------------------------------------------------------------------------------------


def _mail_command(capabilities: Capabilities, mail: OutgoingMail) -> bytes:
    options = ""
    if "SIZE" in capabilities:
        options += f" SIZE={len(mail.content)}"
    if "8BITMIME" in capabilities and not mail.content.isascii():
        options += " BODY=8BITMIME"
    if mail.smtputf8:
        options += " SMTPUTF8"
    return f"MAIL FROM:<>{options}\r\n".encode("ascii")


def _rcpt_options(capabilities: Capabilities) -> str:
    """Return ` NOTIFY=NEVER`: a notification must not cause another one (RFC 3461 §6.1)."""
    return " NOTIFY=NEVER" if "DSN" in capabilities else ""


def _cram_md5(username: str, password: str) -> Conversation[None]:
    """Log in by CRAM-MD5 (RFC 2195)."""
    challenge = yield from _auth_step(b"AUTH CRAM-MD5", final=False)
    try:
        text = base64.b64decode(challenge, validate=True)
    except (binascii.Error, ValueError):
        raise AuthenticationError("the server's CRAM-MD5 challenge is no base64") from None
    digest = hmac.new(password.encode(), text, hashlib.md5).hexdigest()
    yield from _auth_step(base64.b64encode(f"{username} {digest}".encode()), final=True)


def _auth_step(line: bytes, *, final: bool) -> Conversation[str]:
    """Send a line and return the text of the reply: a 334 challenge, or a 2yz if `final`."""
    (reply,) = yield Exchange(line + b"\r\n", 1, Stage.AUTH)
    if reply.is_completion if final else reply.code == 334:  # noqa: PLR2004 - RFC 4954 §4
        return reply.lines[0]
    raise RefusedError(StageReply(Stage.AUTH, reply))


def expect(reply: ServerReply, stage: Stage) -> None:
    """Raise `RefusedError` unless the reply is a 2yz."""
    if not reply.is_completion:
        raise RefusedError(StageReply(stage, reply))
