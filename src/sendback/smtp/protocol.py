"""The SMTP server as a machine: bytes in, replies and events out. No sockets, no clock, no I/O.

Theory of operation. `receive` takes octets, cut anywhere. `next_event` runs one line, or reads one
piece of content, and returns what has happened, or None when it needs more octets. So the transport
decides how much one client may do before others get their turn. `take_output` returns what is to
be written to the client.

Some events are questions: `RecipientAsked`, `MessageEnded`, `TlsAsked`. After one, the machine
runs nothing until it is answered (`accept_recipient`, `message_kept`, `refuse`, `tls_started`), so
commands that a client pipelines behind it wait, and the replies keep the commands' order.

The commands are a table, each with what it needs to have come before. Errors are counted, and so
are commands that bring no message nearer (NOOP, RSET and the like); a client with too many is cut
off. What must never be in this file: a socket, an `await`, a file, the time of day.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from sendback.mail.envelope import Client, Envelope, Recipient
from sendback.smtp import replies
from sendback.smtp.commands import CommandError, MailCommand, parse_mail, parse_rcpt
from sendback.smtp.content import ContentReader
from sendback.smtp.input import InputBuffer
from sendback.smtp.replies import ERROR, Reply, reply

# RFC 5321 §4.5.3.1.4, and what the extensions add: RFC 1870 §3, RFC 6152 §2, RFC 6531 §3.4,
# RFC 3461 §4. Octets with the CR LF.
MAX_LINE = 512
MAX_LINES = {"MAIL": MAX_LINE + 26 + 17 + 10 + 9 + 107, "RCPT": MAX_LINE + 29 + 507}
# Octets of replies that wait to be taken; a short command may have a long one.
MAX_OUTPUT = 16 * 1024
_LONGEST = max(MAX_LINES.values())
# A client with more recipients than a message may have is told so for each of the others
# (RFC 5321 §4.5.3.1.10); this many times the limit is no list of recipients any more.
_MAX_RECIPIENT_COMMANDS = 10
# Content over the limit is read on, so that the reply comes behind it; up to a point.
_EXCESS_OCTETS = 2**20

_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*")
_GREETING = re.compile(rb"(?:EHLO|HELO) ", re.IGNORECASE)
_MAX_HELO = 255


@lru_cache(maxsize=16)
def _banner(hostname: str) -> Reply:
    return reply(220, "", f"{hostname} ESMTP Sendback")


@lru_cache(maxsize=16)
def _ehlo_reply(hostname: str, size: int, *, offers_tls: bool) -> Reply:
    lines = (
        f"{hostname} greets you",
        f"SIZE {size}",
        "8BITMIME",
        "PIPELINING",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "DSN",
        "HELP",
    )
    return Reply(250, "", (*lines, "STARTTLS") if offers_tls else lines)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may do: `content` in octets, `recipients` of a message, `errors` in all.

    `fruitless` is the number of commands that bring no message nearer, between two messages.
    """

    content: int = 40 * 2**20
    recipients: int = 1000
    errors: int = 100
    fruitless: int = 200


@dataclass(slots=True)
class Space:
    """How many octets of content can be stored. The transport keeps it up to date."""

    octets: float = math.inf


@dataclass(frozen=True, slots=True)
class LineRun:
    """A line was run, or a piece of content dropped. There is nothing to decide."""


@dataclass(frozen=True, slots=True)
class RecipientAsked:
    """Is mail for this recipient received here? Answer `accept_recipient` or `refuse`."""

    recipient: Recipient


@dataclass(frozen=True, slots=True)
class ContentStarted:
    """DATA was accepted; content follows."""


@dataclass(frozen=True, slots=True)
class ContentReceived:
    """A piece of the message's content, dot-stuffing undone; it may be empty."""

    content: bytes


@dataclass(frozen=True, slots=True)
class MessageEnded:
    """The whole content has come, `content` being its last piece. Answer `message_kept`, `refuse`.

    `notes` has, for each recipient of the envelope, what `accept_recipient` was given.
    """

    envelope: Envelope
    notes: tuple[object, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class ContentDropped:
    """The message is refused by its form or size: drop what has come of its content."""


@dataclass(frozen=True, slots=True)
class TlsAsked:
    """The reply to STARTTLS is in the output: flush it, do the handshake, `tls_started`."""


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """Flush the output and close the connection."""


Event = (
    LineRun
    | RecipientAsked
    | ContentStarted
    | ContentReceived
    | MessageEnded
    | ContentDropped
    | TlsAsked
    | ConnectionEnded
)


_LINE_RUN = LineRun()


class _Phase(Enum):
    COMMAND = auto()
    CONTENT = auto()
    ASKING_RECIPIENT = auto()
    ASKING_MESSAGE = auto()
    STARTING_TLS = auto()
    ENDED = auto()


_QUESTIONS = {_Phase.ASKING_RECIPIENT, _Phase.ASKING_MESSAGE, _Phase.STARTING_TLS}


class SmtpMachine:
    """One SMTP session as the server sees it."""

    def __init__(
        self,
        *,
        hostname: str,
        client_ip: str,
        limits: Limits,
        offers_tls: bool,
        space: Space | None = None,
    ) -> None:
        self._hostname = hostname
        self._client_ip = client_ip
        self._limits = limits
        self._offers_tls = offers_tls
        self._tls: str | None = None
        self._space = space or Space()
        self._phase = _Phase.COMMAND
        self._input = InputBuffer(_LONGEST)
        self._end_reported = False
        self._errors = 0
        self._fruitless = 0
        self.lines = 0  # that have been run
        self._helo: str | None = None
        self._output: list[bytes] = [_banner(hostname).wire]
        self._output_octets = 0
        self.has_much_output = False  # then `take_output` is needed before more lines are run
        # The transaction; `_start_over` clears it.
        self._mail: MailCommand | None = None
        self._recipients: dict[str, tuple[Recipient, object]] = {}  # by the address's key
        self._recipient_commands = 0
        self._asked: Recipient | None = None
        self._reader: ContentReader
        self._size = 0
        self._refusal: Reply | None = None

    # --- octets ---------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take octets from the client. What is sent in clear behind STARTTLS is dropped."""
        if self._phase is not _Phase.STARTING_TLS and self._phase is not _Phase.ENDED:
            self._input.append(data)

    def take_output(self) -> bytes:
        """Return what is to be written to the client now."""
        output = b"".join(self._output)
        self._output.clear()
        self._output_octets = 0
        self.has_much_output = False
        return output

    @property
    def buffered(self) -> int:
        """The number of octets that have come and have not been used."""
        return self._input.octets

    @property
    def is_encrypted(self) -> bool:
        """Whether what is said now comes through TLS."""
        return self._tls is not None

    @property
    def is_in_transaction(self) -> bool:
        """Whether MAIL has been accepted and the message has not come to its end."""
        return self._mail is not None

    @property
    def is_reading_content(self) -> bool:
        """Whether the client is sending the content of a message."""
        return self._phase is _Phase.CONTENT

    @property
    def content_octets(self) -> int:
        """How many octets of the message's content have come."""
        return self._size

    def next_event(self) -> Event | None:
        """Run the next line, or read the next piece of content; return what has happened.

        None: nothing can be done without octets, an answer or `take_output`.
        """
        if self._phase is _Phase.COMMAND:
            line = None if self.has_much_output else self._input.take_line()
            return None if line is None else self._run_line(line)
        if self._phase is _Phase.CONTENT:
            return self._read_content()
        if self._phase is _Phase.ENDED:
            return self._report_end()
        return None

    def _report_end(self) -> Event | None:
        if self._end_reported:
            return None
        self._end_reported = True
        return ConnectionEnded()

    # --- answers --------------------------------------------------------------------------

    def accept_recipient(self, note: object) -> None:
        """`note` comes back with `MessageEnded`. A recipient given twice is one: the first."""
        recipient = self._asked
        self._answer(_Phase.ASKING_RECIPIENT, replies.RECIPIENT_OK)
        if recipient is not None:
            self._recipients.setdefault(recipient.address.key, (recipient, note))

    def message_kept(self, message_id: str) -> None:
        """The message is durable."""
        self._answer(_Phase.ASKING_MESSAGE, reply(250, "2.6.0", f"{message_id} Message accepted"))
        self._fruitless = 0
        self._start_over()

    def refuse(self, answer: Reply) -> None:
        """Refuses what was asked: a recipient, or a message (of which nothing remains then)."""
        phase = self._phase
        self._answer(phase, answer)
        if phase is _Phase.ASKING_MESSAGE:
            self._start_over()

    def tls_started(self, version: str) -> None:
        """RFC 3207 §4.2: the session begins anew, knowing nothing of what was said in clear."""
        self._answer(_Phase.STARTING_TLS, None)
        self._tls = version
        self._helo = None
        self._start_over()

    def end(self, answer: Reply) -> None:
        """Ends the session from this side: a time-out, a shutdown."""
        if self._phase is not _Phase.ENDED:
            self._output.append(answer.wire)
            self._phase = _Phase.ENDED
            self._input.clear()

    def _answer(self, asked: _Phase, answer: Reply | None) -> None:
        if self._phase is _Phase.ENDED:
            return  # too late: the session has ended meanwhile
        if self._phase is not asked or asked not in _QUESTIONS:
            raise RuntimeError(f"nothing was asked that could be answered ({self._phase.name})")
        self._phase = _Phase.COMMAND
        self._asked = None
        if answer is not None:
            self._reply(answer)

    # --- lines ----------------------------------------------------------------------------

    def _run_line(self, line: bytes) -> Event:
        self.lines += 1
        try:
            return self._run_command(*self._split_line(line)) or _LINE_RUN
        except CommandError as error:
            self._reply(error.reply)
            return _LINE_RUN

    def _split_line(self, line: bytes) -> tuple[str, str]:
        """The verb in upper case, and its argument."""
        if len(line) > _LONGEST:
            raise CommandError(replies.LINE_TOO_LONG)
        content = line[:-2]
        if line[-2:] != b"\r\n" or b"\r" in content:
            raise CommandError(replies.BARE_LINE_FEED)
        try:
            # RFC 5321 §4.1.4: no mail is refused for a client's name, whatever its charset.
            text = content.decode(errors="replace" if _GREETING.match(line) else "strict")
        except UnicodeDecodeError:
            raise CommandError(replies.NOT_TEXT) from None
        # `isprintable` is all of it for ASCII, and takes a tenth of the time.
        if not (text.isascii() and text.isprintable()) and not _TEXT.fullmatch(text):
            raise CommandError(replies.NOT_TEXT)
        verb, _, argument = text.rstrip(" ").partition(" ")
        verb = verb.upper()
        if len(line) > MAX_LINES.get(verb, MAX_LINE):
            raise CommandError(replies.LINE_TOO_LONG)
        return verb, argument.strip(" ")

    def _run_command(self, verb: str, argument: str) -> Event | None:
        command = _COMMANDS.get(verb)
        if command is None:
            raise CommandError(replies.UNKNOWN_COMMAND)
        if argument and not command.takes_argument:
            raise CommandError(replies.NO_ARGUMENT_ALLOWED)
        if command.is_fruitless and not self._may_be_fruitless():
            return None
        return command.run(self, argument)

    def _may_be_fruitless(self) -> bool:
        self._fruitless += 1
        if self._fruitless > self._limits.fruitless:
            self.end(replies.TOO_MANY_COMMANDS)
        return self._phase is not _Phase.ENDED

    def _reply(self, answer: Reply) -> None:
        wire = answer.wire
        self._output.append(wire)
        self._output_octets += len(wire)
        if self._output_octets > MAX_OUTPUT:
            self.has_much_output = True
        if answer.code >= ERROR:
            self._errors += 1
            if self._errors >= self._limits.errors:
                self.end(replies.TOO_MANY_ERRORS)

    # --- commands -------------------------------------------------------------------------

    def _start_over(self) -> None:
        """RFC 5321 §4.1.1.5: no sender, no recipients, no content."""
        self._mail = None
        self._recipients = {}
        self._recipient_commands = 0
        self._asked = None
        self._size = 0
        self._refusal = None

    def _helo_command(self, argument: str) -> None:
        self._greet(argument)
        self._reply(reply(250, "", self._hostname))

    def _ehlo(self, argument: str) -> None:
        self._greet(argument)
        offers_tls = self._offers_tls and self._tls is None
        self._reply(_ehlo_reply(self._hostname, self._limits.content, offers_tls=offers_tls))

    def _greet(self, argument: str) -> None:
        if not 0 < len(argument) <= _MAX_HELO:
            raise CommandError(replies.BAD_PARAMETER)
        self._helo = argument
        self._start_over()

    def _mail_command(self, argument: str) -> None:
        if self._helo is None:
            raise CommandError(replies.SAY_HELLO)
        if self._mail is not None:
            raise CommandError(replies.SENDER_ALREADY_GIVEN)
        command = parse_mail(argument)
        if command.size is not None and command.size > self._limits.content:
            raise CommandError(replies.TOO_LARGE)
        if (command.size or 1) > self._space.octets:
            raise CommandError(replies.NO_STORAGE)
        self._mail = command
        self._reply(replies.SENDER_OK)

    def _rcpt(self, argument: str) -> Event | None:
        if self._mail is None:
            raise CommandError(replies.MAIL_FIRST)
        recipient = parse_rcpt(argument, self._hostname, smtputf8=self._mail.smtputf8)
        self._recipient_commands += 1
        if self._recipient_commands > _MAX_RECIPIENT_COMMANDS * self._limits.recipients:
            self.end(replies.TOO_MANY_COMMANDS)
            return None
        if len(self._recipients) >= self._limits.recipients:
            self._reply(replies.TOO_MANY_RECIPIENTS)
            return None
        self._asked = recipient
        self._phase = _Phase.ASKING_RECIPIENT
        return RecipientAsked(recipient)

    def _data(self, _: str) -> Event:
        if self._mail is None:
            raise CommandError(replies.MAIL_FIRST)
        if not self._recipients:
            raise CommandError(replies.NO_RECIPIENTS)
        self._reply(replies.SEND_CONTENT)
        self._reader = ContentReader()
        self._phase = _Phase.CONTENT
        return ContentStarted()

    def _rset(self, _: str) -> None:
        self._start_over()
        self._reply(replies.OK)

    def _noop(self, _: str) -> None:
        self._reply(replies.OK)

    def _quit(self, _: str) -> None:
        self.end(replies.BYE)

    def _starttls(self, _: str) -> Event:
        if self._tls is not None:
            raise CommandError(replies.TLS_ALREADY)
        if not self._offers_tls:
            raise CommandError(replies.NOT_IMPLEMENTED)
        self._reply(replies.READY_FOR_TLS)
        self._phase = _Phase.STARTING_TLS
        self._input.clear()  # CVE-2011-0411
        return TlsAsked()

    def _vrfy(self, argument: str) -> None:
        if not argument:
            raise CommandError(replies.BAD_PARAMETER)
        self._reply(replies.CANNOT_VERIFY)

    def _help(self, _: str) -> None:
        self._reply(_help_reply())

    def _not_implemented(self, _: str) -> None:
        raise CommandError(replies.NOT_IMPLEMENTED)

    # --- content --------------------------------------------------------------------------

    def _read_content(self) -> Event | None:
        piece = self._input.take_content(self._reader)
        if piece is None:
            return None
        self._size += len(piece.content)
        if self._size > self._limits.content and self._refusal is None:
            self._refusal = replies.TOO_LARGE
            if piece.end is None:
                return ContentDropped()
        if piece.end is not None:
            return self._end_content(piece.content)
        if self._refusal is None:
            return ContentReceived(piece.content)
        if self._size > 2 * self._limits.content + _EXCESS_OCTETS:
            self.end(self._refusal)
        return _LINE_RUN

    def _end_content(self, last: bytes) -> Event:
        if self._reader.has_bare_line_end:
            self._refusal = replies.BARE_LINE_END
        if self._refusal is not None:
            self._phase = _Phase.COMMAND
            refusal = self._refusal
            self._start_over()
            self._reply(refusal)
            return ContentDropped()
        self._phase = _Phase.ASKING_MESSAGE
        notes = tuple(note for _, note in self._recipients.values())
        return MessageEnded(self._envelope(), notes, last)

    def _envelope(self) -> Envelope:
        mail = self._mail
        if mail is None or self._helo is None:
            raise RuntimeError("content without a transaction")
        return Envelope(
            client=Client(self._client_ip, self._helo, self._tls),
            reverse_path=mail.reverse_path,
            recipients=tuple(recipient for recipient, _ in self._recipients.values()),
            ret=mail.ret,
            envelope_id=mail.envelope_id,
            smtputf8=mail.smtputf8,
            body_8bit=mail.body_8bit,
        )


@lru_cache(maxsize=1)
def _help_reply() -> Reply:
    known = " ".join(sorted(verb for verb, command in _COMMANDS.items() if command.is_offered))
    return Reply(214, "2.0.0", ("Commands: " + known, "See RFC 5321"))


@dataclass(frozen=True, slots=True)
class _Command:
    run: Callable[[SmtpMachine, str], Event | None]
    takes_argument: bool = False
    is_offered: bool = True
    is_fruitless: bool = False


_COMMANDS: dict[str, _Command] = {
    "HELO": _Command(SmtpMachine._helo_command, takes_argument=True, is_fruitless=True),  # noqa: SLF001
    "EHLO": _Command(SmtpMachine._ehlo, takes_argument=True, is_fruitless=True),  # noqa: SLF001
    "MAIL": _Command(SmtpMachine._mail_command, takes_argument=True),  # noqa: SLF001
    "RCPT": _Command(SmtpMachine._rcpt, takes_argument=True),  # noqa: SLF001
    "DATA": _Command(SmtpMachine._data),  # noqa: SLF001
    "RSET": _Command(SmtpMachine._rset, is_fruitless=True),  # noqa: SLF001
    "NOOP": _Command(SmtpMachine._noop, takes_argument=True, is_fruitless=True),  # noqa: SLF001
    "QUIT": _Command(SmtpMachine._quit),  # noqa: SLF001
    "STARTTLS": _Command(SmtpMachine._starttls),  # noqa: SLF001
    "VRFY": _Command(SmtpMachine._vrfy, takes_argument=True, is_fruitless=True),  # noqa: SLF001
    "HELP": _Command(SmtpMachine._help, takes_argument=True, is_fruitless=True),  # noqa: SLF001
    "EXPN": _Command(SmtpMachine._not_implemented, takes_argument=True, is_offered=False),  # noqa: SLF001
    "AUTH": _Command(SmtpMachine._not_implemented, takes_argument=True, is_offered=False),  # noqa: SLF001
    "BDAT": _Command(SmtpMachine._not_implemented, takes_argument=True, is_offered=False),  # noqa: SLF001
    "ETRN": _Command(SmtpMachine._not_implemented, takes_argument=True, is_offered=False),  # noqa: SLF001
    "TURN": _Command(SmtpMachine._not_implemented, takes_argument=True, is_offered=False),  # noqa: SLF001
}
