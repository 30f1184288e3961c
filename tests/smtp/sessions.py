"""A session with the machine, without sockets: what a client sends, what it is answered."""

from dataclasses import dataclass, field

from sendback.mail.envelope import Envelope
from sendback.smtp import protocol
from sendback.smtp.protocol import Limits, SmtpMachine
from sendback.smtp.replies import NO_SUCH_RECIPIENT

HERE = "example.com"


@dataclass
class Session:
    """Receives for example.com; keeps every message."""

    limits: Limits = field(default_factory=Limits)
    offers_tls: bool = True
    messages: list[tuple[Envelope, bytes]] = field(default_factory=list)
    asked_for_tls: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        self.machine = SmtpMachine(
            hostname="mx.example.com",
            client_ip="192.0.2.1",
            limits=self.limits,
            offers_tls=self.offers_tls,
        )
        self._content = b""
        self.banner = self.machine.take_output()

    def send(self, *pieces: bytes) -> bytes:
        """Answers all that the machine replies."""
        output = []
        for piece in pieces:
            self.machine.receive(piece)
            while (event := self.machine.next_event()) is not None:
                self._handle(event)
                output.append(self.machine.take_output())
            output.append(self.machine.take_output())
        return b"".join(output)

    def codes(self, *pieces: bytes) -> list[str]:
        """The reply codes of the last line of each reply, with the enhanced status."""
        lines = self.send(*pieces).decode().splitlines()
        return [line[:3] for line in lines if line[3:4] == " "]

    def hello(self) -> "Session":
        self.send(b"EHLO mx.sender.example\r\n")
        return self

    def transaction(self) -> "Session":
        """Up to the 354."""
        self.hello()
        self.send(b"MAIL FROM:<ann@sender.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
        return self

    def _handle(self, event: protocol.Event) -> None:
        match event:
            case protocol.RecipientAsked():
                if event.recipient.address.ascii_domain == HERE:
                    self.machine.accept_recipient(event.recipient)
                else:
                    self.machine.refuse(NO_SUCH_RECIPIENT)
            case protocol.ContentStarted() | protocol.ContentDropped():
                self._content = b""
            case protocol.ContentReceived():
                self._content += event.content
            case protocol.MessageEnded():
                assert len(event.notes) == len(event.envelope.recipients)
                self.messages.append((event.envelope, self._content + event.content))
                self.machine.message_kept(f"id{len(self.messages)}")
            case protocol.TlsAsked():
                self.asked_for_tls += 1
            case protocol.ConnectionEnded():
                self.ended = True
