"""What is said to an SMTP server, and what its answers mean. Pure: no sockets, no clock.

Theory of operation. A conversation is a generator. It yields an `Exchange` (octets to send, how
many replies they call for, at which stage) and is sent these replies; what it returns is its
result. `connection.Connection.hold` carries conversations out. So every order of events can be
played through in a test without a network.

A transaction is one exchange where the peer lets commands be pipelined (RFC 2920): MAIL, RCPT and
DATA go out together, or with CHUNKING (RFC 3030) MAIL, RCPT and the whole content. Whatever a
pipelined command was answered, the replies to those behind it are read, so that the session stays
in step and can be used again.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from sendback.delivery.replies import Reply

T = TypeVar("T")

# Content that BDAT carries in one go: larger ones wait until the recipient was taken.
MAX_BDAT_OCTETS = 256 * 1024
_MINUTE = 60.0
_LEADING_DOT = re.compile(rb"(?m)^\.")


class Stage(StrEnum):
    """Where in a session something happened."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "content"


# RFC 5321 §4.5.3.2: how long a reply may take.
SECONDS: Mapping[Stage, float] = {
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
    """Octets to send, how many replies to wait for, and at which stage that is."""

    octets: bytes
    replies: int
    stage: Stage


Conversation = Generator[Exchange, list[Reply], T]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The keywords of the EHLO reply, upper case, with their parameters (RFC 5321 §4.1.1.1)."""

    keywords: Mapping[str, str]

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def max_size(self) -> int:
        """RFC 1870: the largest message in octets; 0 is no limit."""
        text = self.keywords.get("SIZE", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0  # noqa: PLR2004

    @property
    def auth_mechanisms(self) -> frozenset[str]:
        return frozenset(self.keywords.get("AUTH", "").upper().split())


@dataclass(frozen=True, slots=True)
class Answer:
    """How far it came, and the peer's words there."""

    stage: Stage
    reply: Reply


class RefusedError(Exception):
    """The session cannot go on: what the peer said, and where."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.stage}: {answer.reply}")
        self.answer = answer


class AuthenticationError(Exception):
    """No mechanism that the peer offers can be used; `str` says which it offers."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a transaction is about: the null reverse-path, one recipient, the content."""

    recipient: str
    content: bytes
    smtputf8: bool = False


def greet(hostname: str) -> Conversation[Capabilities]:
    """Waits for the greeting and says EHLO. Raises `RefusedError`."""
    (greeting,) = yield Exchange(b"", 1, Stage.GREETING)
    _expect(greeting, Stage.GREETING)
    return (yield from hello(hostname))


def hello(hostname: str) -> Conversation[Capabilities]:
    """EHLO, or HELO for a server that does not know it. Raises `RefusedError`."""
    (reply,) = yield Exchange(f"EHLO {hostname}\r\n".encode("ascii"), 1, Stage.EHLO)
    if reply.is_permanent and reply.code != 521:  # noqa: PLR2004 - RFC 7504: takes no mail
        (reply,) = yield Exchange(f"HELO {hostname}\r\n".encode("ascii"), 1, Stage.EHLO)
        _expect(reply, Stage.EHLO)
        return Capabilities({})
    _expect(reply, Stage.EHLO)
    pairs = (line.partition(" ") for line in reply.lines[1:])
    return Capabilities({name.upper(): rest.strip() for name, _, rest in pairs if name})


def ask_for_tls() -> Conversation[None]:
    """STARTTLS up to the 220 (RFC 3207). Raises `RefusedError`."""
    (reply,) = yield Exchange(b"STARTTLS\r\n", 1, Stage.STARTTLS)
    _expect(reply, Stage.STARTTLS)


def authenticate(offered: Capabilities, username: str, password: str) -> Conversation[None]:
    """AUTH (RFC 4954) by CRAM-MD5, PLAIN or LOGIN, what is offered.

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


def transact(capabilities: Capabilities, envelope: Envelope) -> Conversation[Answer]:
    """One message. The session can be used for another one after any answer but 421."""
    mail = _mail_command(capabilities, envelope)
    rcpt = f"RCPT TO:<{envelope.recipient}>{_rcpt_options(capabilities)}\r\n".encode()
    if "PIPELINING" not in capabilities:
        return (yield from _step_by_step(mail, rcpt, envelope.content))
    if "CHUNKING" in capabilities and len(envelope.content) <= MAX_BDAT_OCTETS:
        return (yield from _in_one_go(mail, rcpt, envelope.content))
    return (yield from _pipelined(mail, rcpt, envelope.content))


def reset() -> Conversation[Reply]:
    """RSET: the peer forgets a transaction that was refused."""
    (reply,) = yield Exchange(b"RSET\r\n", 1, Stage.MAIL)
    return reply


def quit_session() -> Conversation[None]:
    """QUIT; what is answered does not matter any more."""
    yield Exchange(b"QUIT\r\n", 1, Stage.EHLO)


def dot_stuffed(content: bytes) -> bytes:
    """RFC 5321 §4.5.2: what DATA carries, with its end."""
    if content.startswith(b".") or b"\n." in content:
        content = _LEADING_DOT.sub(b"..", content)
    return content + (b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n")


# --- the three ways to make a transaction ---------------------------------------------------------


def _in_one_go(mail: bytes, rcpt: bytes, content: bytes) -> Conversation[Answer]:
    octets = mail + rcpt + b"BDAT %d LAST\r\n" % len(content) + content
    answers = yield Exchange(octets, 3, Stage.CONTENT)
    answer = _first_refusal(answers, (Stage.MAIL, Stage.RCPT, Stage.CONTENT))
    return answer


def _pipelined(mail: bytes, rcpt: bytes, content: bytes) -> Conversation[Answer]:
    answers = yield Exchange(mail + rcpt + b"DATA\r\n", 3, Stage.DATA)
    answer = _first_refusal(answers, (Stage.MAIL, Stage.RCPT, Stage.DATA))
    if answers[2].code != 354:  # noqa: PLR2004 - RFC 5321 §4.1.1.4
        return _unless_positive(answer)
    if not all(reply.is_positive for reply in answers[:2]):
        # RFC 2920 §3.1: it waits for content all the same; none is meant for it.
        yield Exchange(b".\r\n", 1, Stage.CONTENT)
        return answer
    (reply,) = yield Exchange(dot_stuffed(content), 1, Stage.CONTENT)
    return Answer(Stage.CONTENT, reply)


def _step_by_step(mail: bytes, rcpt: bytes, content: bytes) -> Conversation[Answer]:
    for command, stage in ((mail, Stage.MAIL), (rcpt, Stage.RCPT)):
        (reply,) = yield Exchange(command, 1, stage)
        if not reply.is_positive:
            return Answer(stage, reply)
    (reply,) = yield Exchange(b"DATA\r\n", 1, Stage.DATA)
    if reply.code != 354:  # noqa: PLR2004 - RFC 5321 §4.1.1.4
        return _unless_positive(Answer(Stage.DATA, reply))
    (reply,) = yield Exchange(dot_stuffed(content), 1, Stage.CONTENT)
    return Answer(Stage.CONTENT, reply)


def _first_refusal(replies: list[Reply], stages: tuple[Stage, ...]) -> Answer:
    for stage, reply in zip(stages, replies, strict=True):
        if not reply.is_positive:
            return Answer(stage, reply)
    return Answer(stages[-1], replies[-1])


def _unless_positive(answer: Answer) -> Answer:
    """A 250 to DATA means nothing: the content was never sent."""
    if answer.reply.is_positive:
        return Answer(answer.stage, Reply(451, (f"DATA was answered {answer.reply}",)))
    return answer


# --- commands -------------------------------------------------------------------------------------


def _mail_command(capabilities: Capabilities, envelope: Envelope) -> bytes:
    options = ""
    if "SIZE" in capabilities:
        options += f" SIZE={len(envelope.content)}"
    if "8BITMIME" in capabilities and not envelope.content.isascii():
        options += " BODY=8BITMIME"
    if envelope.smtputf8:
        options += " SMTPUTF8"
    return f"MAIL FROM:<>{options}\r\n".encode("ascii")


def _rcpt_options(capabilities: Capabilities) -> str:
    """RFC 3461 §6.1: nobody is to be told what becomes of a notification."""
    return " NOTIFY=NEVER" if "DSN" in capabilities else ""


def _cram_md5(username: str, password: str) -> Conversation[None]:
    """RFC 2195."""
    challenge = yield from _auth_step(b"AUTH CRAM-MD5", final=False)
    try:
        text = base64.b64decode(challenge, validate=True)
    except (binascii.Error, ValueError):
        raise AuthenticationError("the server's CRAM-MD5 challenge is no base64") from None
    digest = hmac.new(password.encode(), text, hashlib.md5).hexdigest()
    yield from _auth_step(base64.b64encode(f"{username} {digest}".encode()), final=True)


def _auth_step(line: bytes, *, final: bool) -> Conversation[str]:
    """Answers the challenge of a 334."""
    (reply,) = yield Exchange(line + b"\r\n", 1, Stage.AUTH)
    if (reply.code // 100 == 2) if final else (reply.code == 334):  # noqa: PLR2004 - RFC 4954 §4
        return reply.lines[0]
    raise RefusedError(Answer(Stage.AUTH, reply))


def _expect(reply: Reply, stage: Stage) -> None:
    if reply.code // 100 != 2:  # noqa: PLR2004 - RFC 5321 §4.2.1
        raise RefusedError(Answer(stage, reply))
