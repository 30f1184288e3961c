"""The SMTP server as a machine: bytes in, replies and events out. No sockets, no clock, no I/O.

Theory of operation. `receive` takes octets, cut anywhere. `next_event` works them off and answers
with the next thing that the world outside must know or decide, or None when it needs more octets.
`take_output` answers with what is to be written to the client.

Some events are questions: `RecipientAsked`, `MessageEnded`, `TlsAsked`. After one, the machine
works nothing off until it is answered (`accept_recipient`, `message_kept`, `refuse`,
`tls_started`), so commands that a client pipelines behind it wait their turn, and the replies
keep the commands' order.

The commands are a table, each with what it needs to have come before. Errors are counted; a
client with too many is cut off. What must never be in this file: a socket, an `await`, a file,
the time of day.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from sendback.mail.envelope import Client, Envelope, Recipient
from sendback.smtp import replies
from sendback.smtp.commands import CommandError, MailCommand, parse_mail, parse_rcpt
from sendback.smtp.content import ContentReader
from sendback.smtp.replies import Reply, reply

# RFC 5321 §4.5.3.1.4, and what the extensions add: RFC 1870 §3, RFC 6152 §2, RFC 6531 §3.4,
# RFC 3461 §4. Octets with the CR LF.
MAX_LINE = 512
MAX_LINES = {"MAIL": MAX_LINE + 26 + 17 + 10 + 9 + 107, "RCPT": MAX_LINE + 29 + 507}
# Replies that wait to be taken; a short command may have a long one.
MAX_OUTPUT = 64 * 1024
_LONGEST = max(MAX_LINES.values())

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
    """What a client may do: `content` in octets, `recipients` of a message, `errors` in all."""

    content: int = 40 * 2**20
    recipients: int = 1000
    errors: int = 100


@dataclass(frozen=True, slots=True)
class RecipientAsked:
    """Is mail for this recipient received here? Answer `accept_recipient` or `refuse`."""

    recipient: Recipient


@dataclass(frozen=True, slots=True)
class ContentStarted:
    """DATA was accepted; content follows."""


@dataclass(frozen=True, slots=True)
class ContentReceived:
    """A piece of the message's content, dot-stuffing undone."""

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
    """The message was refused by its form; what came of its content is to be thrown away."""


@dataclass(frozen=True, slots=True)
class TlsAsked:
    """The reply to STARTTLS is in the output: flush it, do the handshake, `tls_started`."""


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """Flush the output and close the connection."""


Event = (
    RecipientAsked
    | ContentStarted
    | ContentReceived
    | MessageEnded
    | ContentDropped
    | TlsAsked
    | ConnectionEnded
)


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

    def __init__(self, *, hostname: str, client_ip: str, limits: Limits, offers_tls: bool) -> None:
        self._hostname = hostname
        self._client_ip = client_ip
        self._limits = limits
        self._offers_tls = offers_tls
        self._tls: str | None = None
        self._phase = _Phase.COMMAND
        self._buffer = b""
        self._position = 0  # of what has not been worked off
        self._skipping_line = False
        self._end_reported = False
        self._errors = 0
        self._helo: str | None = None
        self._output: list[bytes] = [_banner(hostname).wire]
        self._output_octets = 0
        # The transaction; `_start_over` clears it.
        self._mail: MailCommand | None = None
        self._recipients: list[Recipient] = []
        self._notes: list[object] = []
        self._asked: Recipient | None = None
        self._reader = ContentReader()
        self._size = 0
        self._refusal: Reply | None = None

    # --- octets ---------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Takes octets from the client. What is sent in clear behind STARTTLS is dropped."""
        if self._phase not in {_Phase.STARTING_TLS, _Phase.ENDED}:
            self._buffer = self._take_rest() + data

    def take_output(self) -> bytes:
        """What is to be written to the client now."""
        output = b"".join(self._output)
        self._output.clear()
        self._output_octets = 0
        return output

    @property
    def buffered(self) -> int:
        """How many octets wait to be worked off."""
        return len(self._buffer) - self._position

    @property
    def is_encrypted(self) -> bool:
        """Whether what is said now comes through TLS."""
        return self._tls is not None

    def next_event(self) -> Event | None:
        """The next event; None when octets, an answer or `take_output` are needed first."""
        while True:
            if self._phase is _Phase.CONTENT:
                return self._read_content()
            if self._phase is _Phase.ENDED:
                return self._report_end()
            if self._phase is not _Phase.COMMAND or self._output_octets > MAX_OUTPUT:
                return None
            line = self._take_line()
            if line is None:
                return None
            event = self._run_line(line)
            if event is not None:
                return event

    def _report_end(self) -> Event | None:
        if self._end_reported:
            return None
        self._end_reported = True
        return ConnectionEnded()

    # --- answers --------------------------------------------------------------------------

    def accept_recipient(self, note: object) -> None:
        """`note` comes back with `MessageEnded`."""
        recipient = self._asked
        self._answer(_Phase.ASKING_RECIPIENT, replies.RECIPIENT_OK)
        if recipient and all(
            known.address.key != recipient.address.key for known in self._recipients
        ):
            self._recipients.append(recipient)
            self._notes.append(note)

    def message_kept(self, message_id: str) -> None:
        """The message is durable."""
        self._answer(_Phase.ASKING_MESSAGE, reply(250, "2.6.0", f"{message_id} Message accepted"))
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
            self._take_rest()

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

    def _take_line(self) -> bytes | None:
        """The next line with its end; a line that grows too long is dropped as it comes."""
        end = self._buffer.find(b"\n", self._position) + 1
        if end == 0:
            if self.buffered > _LONGEST:
                self._skipping_line = True
                self._buffer = self._take_rest()[-1:]  # a CR, perhaps, whose LF is to come
            return None
        line = self._buffer[self._position : end]
        self._position = end
        return line

    def _take_rest(self) -> bytes:
        """What is left of the buffer; cutting each line off it would copy the rest each time."""
        rest = self._buffer[self._position :]
        self._buffer, self._position = b"", 0
        return rest

    def _run_line(self, line: bytes) -> Event | None:
        try:
            return self._run_command(*self._split_line(line))
        except CommandError as error:
            self._reply(error.reply)
            return None

    def _split_line(self, line: bytes) -> tuple[str, str]:
        """The verb in upper case, and its argument."""
        if self._skipping_line:
            self._skipping_line = False
            raise CommandError(replies.LINE_TOO_LONG)
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise CommandError(replies.BARE_LINE_FEED)
        try:
            # RFC 5321 §4.1.4: no mail is refused for a client's name, whatever its charset.
            text = line[:-2].decode(errors="replace" if _GREETING.match(line) else "strict")
        except UnicodeDecodeError:
            raise CommandError(replies.NOT_TEXT) from None
        if not _TEXT.fullmatch(text):
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
        return command.run(self, argument)

    def _reply(self, answer: Reply) -> None:
        self._output.append(answer.wire)
        self._output_octets += len(answer.wire)
        if answer.is_error:
            self._errors += 1
            if self._errors >= self._limits.errors:
                self.end(replies.TOO_MANY_ERRORS)

    # --- commands -------------------------------------------------------------------------

    def _start_over(self) -> None:
        """RFC 5321 §4.1.1.5: no sender, no recipients, no content."""
        self._mail = None
        self._recipients = []
        self._notes = []
        self._asked = None
        self._reader = ContentReader()
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
        self._mail = command
        self._reply(replies.SENDER_OK)

    def _rcpt(self, argument: str) -> Event | None:
        if self._mail is None:
            raise CommandError(replies.MAIL_FIRST)
        recipient = parse_rcpt(argument, self._hostname, smtputf8=self._mail.smtputf8)
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
        self._take_rest()  # CVE-2011-0411
        return TlsAsked()

    def _vrfy(self, argument: str) -> None:
        if not argument:
            raise CommandError(replies.BAD_PARAMETER)
        self._reply(replies.CANNOT_VERIFY)

    def _help(self, _: str) -> None:
        known = " ".join(sorted(verb for verb, c in _COMMANDS.items() if c.is_offered))
        self._reply(Reply(214, "2.0.0", ("Commands: " + known, "See RFC 5321")))

    def _not_implemented(self, _: str) -> None:
        raise CommandError(replies.NOT_IMPLEMENTED)

    # --- content --------------------------------------------------------------------------

    def _read_content(self) -> Event | None:
        if not self.buffered:
            return None
        piece = self._reader.feed(self._take_rest())
        self._size += len(piece.content)
        if self._size > self._limits.content:
            self._refusal = replies.TOO_LARGE
        if piece.ended:
            self._buffer = piece.rest
            return self._end_content(piece.content)
        if self._refusal is None and piece.content:
            return ContentReceived(piece.content)
        return None

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
        return MessageEnded(self._envelope(), tuple(self._notes), last)

    def _envelope(self) -> Envelope:
        mail = self._mail
        if mail is None or self._helo is None:
            raise RuntimeError("content without a transaction")
        return Envelope(
            client=Client(self._client_ip, self._helo, self._tls),
            reverse_path=mail.reverse_path,
            recipients=tuple(self._recipients),
            ret=mail.ret,
            envelope_id=mail.envelope_id,
            smtputf8=mail.smtputf8,
            body_8bit=mail.body_8bit,
        )


@dataclass(frozen=True, slots=True)
class _Command:
    run: Callable[[SmtpMachine, str], Event | None]
    takes_argument: bool = False
    is_offered: bool = True


_COMMANDS: dict[str, _Command] = {
    "HELO": _Command(SmtpMachine._helo_command, takes_argument=True),  # noqa: SLF001
    "EHLO": _Command(SmtpMachine._ehlo, takes_argument=True),  # noqa: SLF001
    "MAIL": _Command(SmtpMachine._mail_command, takes_argument=True),  # noqa: SLF001
    "RCPT": _Command(SmtpMachine._rcpt, takes_argument=True),  # noqa: SLF001
    "DATA": _Command(SmtpMachine._data),  # noqa: SLF001
    "RSET": _Command(SmtpMachine._rset),  # noqa: SLF001
    "NOOP": _Command(SmtpMachine._noop, takes_argument=True),  # noqa: SLF001
    "QUIT": _Command(SmtpMachine._quit),  # noqa: SLF001
    "STARTTLS": _Command(SmtpMachine._starttls),  # noqa: SLF001
    "VRFY": _Command(SmtpMachine._vrfy, takes_argument=True),  # noqa: SLF001
    "HELP": _Command(SmtpMachine._help, takes_argument=True),  # noqa: SLF001
    "EXPN": _Command(SmtpMachine._not_implemented, takes_argument=True, is_offered=False),  # noqa: SLF001
    "AUTH": _Command(SmtpMachine._not_implemented, takes_argument=True, is_offered=False),  # noqa: SLF001
    "BDAT": _Command(SmtpMachine._not_implemented, takes_argument=True, is_offered=False),  # noqa: SLF001
    "ETRN": _Command(SmtpMachine._not_implemented, takes_argument=True, is_offered=False),  # noqa: SLF001
    "TURN": _Command(SmtpMachine._not_implemented, takes_argument=True, is_offered=False),  # noqa: SLF001
}
