"""The SMTP server as a machine: octets in, replies and events out. No sockets, no clock, no I/O.

Theory of operation. `receive` takes octets, cut anywhere. `next_event` processes one line, or one
piece of content, and returns what has happened, or a `NoEvent` with the reason why nothing has. So
the caller decides how much work it does for one client before it serves others. `take_output`
returns the octets to send to the client.

Some events ask for a decision: `RecipientReceived`, `MessageReceived`, `TlsRequested`, and
`CommandReceived` for MAIL and DATA if the caller wishes (`asks_about`). After one, the machine is
paused until the caller decides (`accept_recipient`, `accept_message`, `proceed`, `refuse`,
`tls_started`), so pipelined commands wait, and the replies keep the commands' order.

The commands are a table, each with what it requires (`commands`). Errors are counted, and so are
commands outside a transaction (NOOP, RSET and the like); a client with too many is disconnected.
What must never be in this file: a socket, an `await`, a file, the time of day.
"""

from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from itertools import islice
from typing import Generic

from sendback.mail.envelope import Recipient, ReversePath
from sendback.smtp import replies
from sendback.smtp.commands import COMMANDS, Outcome
from sendback.smtp.content import ContentReader
from sendback.smtp.events import (
    CommandReceived,
    ContentReceived,
    ContentRefused,
    ContentStarted,
    Event,
    LineProcessed,
    MessageReceived,
    NoEvent,
    Note,
    RecipientReceived,
    SessionEnded,
    TlsRequested,
)
from sendback.smtp.input_buffer import InputBuffer
from sendback.smtp.lines import LONGEST_LINE, split_line
from sendback.smtp.replies import CommandError, Reply, make_reply
from sendback.smtp.session import SessionLimits, SessionState, StorageSpace

# Octets of replies that wait to be taken; a short command may have a long one.
MAX_OUTPUT = 16 * 1024
# Content over the limit is read and discarded, so that the reply follows it; up to this many more.
_EXCESS_OCTETS = 2**20

# Refusals that wait to be taken; the caller takes them after each slice of work.
_MAX_REFUSALS = 100

_LINE_PROCESSED = LineProcessed()


@dataclass(frozen=True, slots=True)
class RefusedCommand:
    """A command, or the content of a message, that was refused with a reply.

    `recipients` are those accepted so far, or the one that is refused.
    """

    command: str
    reply: Reply
    sender: str | None
    recipients: tuple[str, ...]


class _State(Enum):
    COMMAND = auto()
    CONTENT = auto()
    COMMAND_DECISION = auto()
    RECIPIENT_DECISION = auto()
    MESSAGE_DECISION = auto()
    TLS_HANDSHAKE = auto()
    ENDED = auto()


# The state after an event that a command causes, and the reply that comes before it, if any.
_TRANSITIONS: dict[type, tuple[_State, Reply | None]] = {
    RecipientReceived: (_State.RECIPIENT_DECISION, None),
    ContentStarted: (_State.CONTENT, replies.SEND_CONTENT),
    TlsRequested: (_State.TLS_HANDSHAKE, replies.READY_FOR_TLS),
}


class SmtpMachine(Generic[Note]):
    """One SMTP session as the server sees it; `Note` is what the caller attaches to a recipient."""

    def __init__(
        self,
        *,
        hostname: str,
        client_ip: str,
        limits: SessionLimits,
        offers_tls: bool,
        space: StorageSpace | None = None,
        offers_verdicts: bool = False,
    ) -> None:
        self._limits = limits
        self._session: SessionState[Note] = SessionState(
            hostname, client_ip, limits, offers_tls, space or StorageSpace(), offers_verdicts
        )
        self._state = _State.COMMAND
        self._input = InputBuffer(LONGEST_LINE)
        self._output: list[bytes] = [_banner(hostname).wire]
        self._output_octets = 0
        self._output_full = False
        self._end_reported = False
        self._errors = 0
        self._overhead_commands = 0
        self.lines = 0  # the number of command lines processed
        # The commands that cause `CommandReceived`; of MAIL and DATA.
        self.asks_about: frozenset[str] = frozenset()
        self._outcome: Outcome | None = None  # of the command that was asked about
        self._undecided: Recipient | None = None
        self._reader: ContentReader
        self._content_octets = 0
        self._refusal: Reply | None = None  # of the message, sent after its content
        self._verb = ""
        self._refusals: list[RefusedCommand] = []

    # --- octets ---------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take octets from the client. What follows STARTTLS in clear is discarded."""
        if self._state is not _State.TLS_HANDSHAKE and self._state is not _State.ENDED:
            self._input.append(data)

    def take_output(self) -> bytes:
        """Return the octets to send to the client now."""
        if not self._output:
            return b""
        output = b"".join(self._output)
        self._output.clear()
        self._output_octets = 0
        self._output_full = False
        return output

    @property
    def has_refusals(self) -> bool:
        """Whether `take_refusals` returns any."""
        return bool(self._refusals)

    def take_refusals(self) -> list[RefusedCommand]:
        """Return what was refused since the last call."""
        refusals, self._refusals = self._refusals, []
        return refusals

    @property
    def buffered(self) -> int:
        """The number of octets received and not processed."""
        return self._input.octets

    @property
    def is_encrypted(self) -> bool:
        """Whether the session is under TLS."""
        return self._session.tls is not None

    @property
    def is_in_transaction(self) -> bool:
        """Whether MAIL was accepted and the message is not complete."""
        return self._session.mail is not None

    @property
    def reverse_path(self) -> ReversePath | None:
        """The reverse-path of the transaction; None when none is open."""
        mail = self._session.mail
        return None if mail is None else mail.reverse_path

    @property
    def recipients(self) -> list[Recipient]:
        """The recipients accepted so far."""
        return [recipient for recipient, _ in self._session.recipients.values()]

    @property
    def is_reading_content(self) -> bool:
        """Whether the client is sending the content of a message."""
        return self._state is _State.CONTENT

    @property
    def content_octets(self) -> int:
        """The number of octets of the message's content received so far."""
        return self._content_octets

    def next_event(self) -> Event[Note] | NoEvent:
        """Process the next line, or the next piece of content; return what has happened."""
        if self._state is _State.COMMAND:
            if self._output_full:
                return NoEvent.OUTPUT_FULL
            line = self._input.take_line()
            return NoEvent.NEED_DATA if line is None else self._process_line(line)
        if self._state is _State.CONTENT:
            return self._read_content()
        return self._report_end() if self._state is _State.ENDED else NoEvent.PAUSED

    def _report_end(self) -> SessionEnded | NoEvent:
        if self._end_reported:
            return NoEvent.ENDED
        self._end_reported = True
        return SessionEnded()

    # --- decisions ------------------------------------------------------------------------

    def proceed(self) -> Event[Note]:
        """Carry out the command that was asked about; return its event."""
        outcome, self._outcome = self._outcome, None
        self._resume(_State.COMMAND_DECISION, None)
        if outcome is None or self._state is _State.ENDED:
            return _LINE_PROCESSED
        return self._respond(outcome)

    def accept_recipient(self, note: Note) -> None:
        """Accept the recipient; `note` returns with `MessageReceived`.

        Of a recipient that is given twice, the first is kept.
        """
        recipient = self._undecided
        self._resume(_State.RECIPIENT_DECISION, replies.RECIPIENT_OK)
        if recipient is not None:
            self._session.recipients.setdefault(recipient.address.key, (recipient, note))

    def accept_message(self, message_id: str) -> None:
        """Accept the message: it is durable."""
        accepted = make_reply(250, "2.6.0", f"{message_id} Message accepted")
        self._resume(_State.MESSAGE_DECISION, accepted)
        self._overhead_commands = 0
        self._end_transaction()

    def refuse(self, reply: Reply) -> None:
        """Refuse the recipient; or the command or the message, which ends the transaction."""
        state = self._state
        self._note_refusal(reply, self._undecided)
        self._resume(state, reply)
        if state is _State.MESSAGE_DECISION or state is _State.COMMAND_DECISION:
            self._end_transaction()

    def tls_started(self, version: str) -> None:
        """Start the session anew: the handshake is done (RFC 3207 §4.2)."""
        self._resume(_State.TLS_HANDSHAKE, None)
        self._session.restart(version)

    def end(self, reply: Reply) -> None:
        """End the session from this side, such as for a timeout or a shutdown."""
        if self._state is not _State.ENDED:
            self._output.append(reply.wire)
            self._state = _State.ENDED
            self._input.clear()

    def _resume(self, expected: _State, reply: Reply | None) -> None:
        if self._state is _State.ENDED:
            return  # the session ended before the decision
        if self._state is not expected or expected is _State.COMMAND or expected is _State.CONTENT:
            raise RuntimeError(f"no such decision is expected in state {self._state.name}")
        self._state = _State.COMMAND
        self._undecided = None
        if reply is not None:
            self._reply(reply)

    # --- commands -------------------------------------------------------------------------

    def _process_line(self, line: bytes) -> Event[Note]:
        self.lines += 1
        try:
            return self._process_command(*split_line(line))
        except CommandError as error:
            self._note_refusal(error.reply)
            self._reply(error.reply)
            return _LINE_PROCESSED

    def _process_command(self, verb: str, argument: str) -> Event[Note]:
        self._verb = verb
        command = COMMANDS.get(verb)
        if command is None:
            raise CommandError(replies.UNKNOWN_COMMAND)
        if argument and not command.takes_argument:
            raise CommandError(replies.NO_ARGUMENT_ALLOWED)
        if command.is_overhead:
            self._overhead_commands += 1
            if self._overhead_commands > self._limits.overhead_commands:
                self.end(replies.TOO_MANY_COMMANDS)
                return _LINE_PROCESSED
        for requirement in command.requires:
            if not requirement.is_met(self._session):
                raise CommandError(requirement.refusal)
        outcome = command.handler(self._session, argument)
        if verb in self.asks_about:
            self._outcome, self._state = outcome, _State.COMMAND_DECISION
            return CommandReceived(verb)
        return self._respond(outcome)

    def _respond(self, outcome: Outcome) -> Event[Note]:
        if isinstance(outcome, Reply):
            self._note_error(outcome)
            self._reply(outcome)
            return _LINE_PROCESSED
        return self._enter_state(outcome)

    def _enter_state(
        self, event: RecipientReceived | ContentStarted | TlsRequested
    ) -> RecipientReceived | ContentStarted | TlsRequested:
        self._state, reply = _TRANSITIONS[type(event)]
        if reply is not None:
            self._reply(reply)
        if isinstance(event, RecipientReceived):
            self._undecided = event.recipient
        elif isinstance(event, ContentStarted):
            self._reader = ContentReader()
        else:
            self._input.clear()  # CVE-2011-0411
        return event

    def _note_error(self, reply: Reply) -> None:
        if reply.is_error:
            self._note_refusal(reply)

    def _note_refusal(self, reply: Reply, recipient: Recipient | None = None) -> None:
        if len(self._refusals) >= _MAX_REFUSALS or self._state is _State.ENDED:
            return
        session = self._session
        accepted = (entry for entry, _ in session.recipients.values())
        about = (recipient,) if recipient else tuple(islice(accepted, _MAX_REFUSALS))
        self._refusals.append(
            RefusedCommand(
                self._verb,
                reply,
                str(session.mail.reverse_path) if session.mail else None,
                tuple(str(entry.address) for entry in about),
            )
        )

    def _reply(self, reply: Reply) -> None:
        if reply.is_last:
            self.end(reply)
            return
        wire = reply.wire
        self._output.append(wire)
        self._output_octets += len(wire)
        if self._output_octets > MAX_OUTPUT:
            self._output_full = True
        if reply.code >= replies.ERROR:
            self._errors += 1
            if self._errors >= self._limits.errors:
                self.end(replies.TOO_MANY_ERRORS)

    # --- content --------------------------------------------------------------------------

    def _read_content(self) -> Event[Note] | NoEvent:
        piece = self._input.take_content(self._reader)
        if piece is None:
            return NoEvent.NEED_DATA
        self._content_octets += len(piece.content)
        if self._content_octets > self._limits.content and self._refusal is None:
            self._refusal = replies.TOO_LARGE
            if piece.end is None:
                return ContentRefused()
        if piece.end is not None:
            return self._end_content(piece.content)
        if self._refusal is None:
            return ContentReceived(piece.content)
        if self._content_octets > 2 * self._limits.content + _EXCESS_OCTETS:
            self.end(self._refusal)
        return _LINE_PROCESSED

    def _end_content(self, last: bytes) -> ContentRefused | MessageReceived[Note]:
        if self._reader.has_bare_line_end:
            self._refusal = replies.BARE_LINE_END
        if self._refusal is not None:
            self._state = _State.COMMAND
            refusal = self._refusal
            self._note_refusal(refusal)
            self._end_transaction()
            self._reply(refusal)
            return ContentRefused()
        self._state = _State.MESSAGE_DECISION
        return MessageReceived(self._session.envelope(), self._session.notes(), last)

    def _end_transaction(self) -> None:
        self._session.reset()
        self._content_octets = 0
        self._refusal = None


@lru_cache(maxsize=16)
def _banner(hostname: str) -> Reply:
    return make_reply(220, "", f"{hostname} ESMTP Sendback")
