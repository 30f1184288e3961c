"""What the SMTP machine reports to its caller. Pure.

Four events ask for a decision, and the machine is paused until it comes: `CommandReceived`,
`RecipientReceived`, `MessageReceived` and `TlsRequested`.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeAlias, TypeVar

from sendback.mail.envelope import Envelope, Recipient

# What the caller attaches to a recipient that it accepts. The machine carries it, unread.
Note = TypeVar("Note")


class NoEvent(Enum):
    """Why the machine has no event, as in h11."""

    NEED_DATA = auto()  # the input holds no whole line, or no content
    PAUSED = auto()  # the caller has to decide on the last event
    OUTPUT_FULL = auto()  # the caller has to take the output
    ENDED = auto()  # nothing follows


@dataclass(frozen=True, slots=True)
class LineProcessed:
    """A command was processed, or a piece of refused content discarded. Nothing to do."""


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """A command in `SmtpMachine.asks_about` was valid. Decide by `proceed` or `refuse`."""

    verb: str


@dataclass(frozen=True, slots=True)
class RecipientReceived:
    """RCPT was valid. Decide by `accept_recipient` or `refuse`."""

    recipient: Recipient


@dataclass(frozen=True, slots=True)
class ContentStarted:
    """DATA was accepted; content follows."""


@dataclass(frozen=True, slots=True)
class ContentReceived:
    """A piece of the message's content, without dot-stuffing; it may be empty."""

    content: bytes


@dataclass(frozen=True, slots=True)
class MessageReceived(Generic[Note]):
    """The content is complete; `content` is its last piece. Decide by `accept_message` or `refuse`.

    `notes` are the notes given to `accept_recipient`, one for each recipient of the envelope.
    """

    envelope: Envelope
    notes: tuple[Note, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class ContentRefused:
    """The message is refused for its form or size: discard the content received so far."""


@dataclass(frozen=True, slots=True)
class TlsRequested:
    """The reply to STARTTLS is in the output: send it, do the handshake, call `tls_started`."""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Send the output and close the connection."""


Event: TypeAlias = (
    LineProcessed
    | CommandReceived
    | RecipientReceived
    | ContentStarted
    | ContentReceived
    | MessageReceived[Note]
    | ContentRefused
    | TlsRequested
    | SessionEnded
)
