"""A session with the machine, without sockets: what a client sends, and the replies."""

from dataclasses import dataclass, field

from sendback.mail.envelope import Envelope, Recipient
from sendback.smtp import events
from sendback.smtp.events import NoEvent
from sendback.smtp.machine import SmtpMachine
from sendback.smtp.replies import NO_SUCH_RECIPIENT
from sendback.smtp.session import SessionLimits

HERE = "example.com"


@dataclass
class Session:
    """Receives for example.com; accepts every message."""

    limits: SessionLimits = field(default_factory=SessionLimits)
    offers_tls: bool = True
    messages: list[tuple[Envelope, bytes]] = field(default_factory=list)
    tls_requests: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        self.machine: SmtpMachine[Recipient] = SmtpMachine(
            hostname="mx.example.com",
            client_ip="192.0.2.1",
            limits=self.limits,
            offers_tls=self.offers_tls,
        )
        self._content = b""
        self.banner = self.machine.take_output()

    def send(self, *pieces: bytes) -> bytes:
        """Return all replies of the machine."""
        output = []
        for piece in pieces:
            self.machine.receive(piece)
            while not isinstance(event := self.machine.next_event(), NoEvent):
                self._handle(event)
                output.append(self.machine.take_output())
            output.append(self.machine.take_output())
        return b"".join(output)

    def codes(self, *pieces: bytes) -> list[str]:
        """Return the code of each reply."""
        lines = self.send(*pieces).decode().splitlines()
        return [line[:3] for line in lines if line[3:4] == " "]

    def hello(self) -> "Session":
        self.send(b"EHLO mx.sender.example\r\n")
        return self

    def transaction(self) -> "Session":
        """Send commands up to DATA."""
        self.hello()
        self.send(b"MAIL FROM:<ann@sender.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
        return self

    def _handle(self, event: events.Event[Recipient]) -> None:
        match event:
            case events.RecipientReceived():
                if event.recipient.address.ascii_domain == HERE:
                    self.machine.accept_recipient(event.recipient)
                else:
                    self.machine.refuse(NO_SUCH_RECIPIENT)
            case events.ContentStarted() | events.ContentRefused():
                self._content = b""
            case events.ContentReceived():
                self._content += event.content
            case events.MessageReceived():
                assert len(event.notes) == len(event.envelope.recipients)
                self.messages.append((event.envelope, self._content + event.content))
                self.machine.accept_message(f"id{len(self.messages)}")
            case events.TlsRequested():
                self.tls_requests += 1
            case events.SessionEnded():
                self.ended = True
