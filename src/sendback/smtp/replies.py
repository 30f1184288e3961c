"""SMTP replies with their enhanced status codes (RFC 5321 §4.2, RFC 2034, RFC 3463). Pure."""

from dataclasses import dataclass, field

ERROR = 500  # and above: what was asked will not be done later either (RFC 5321 §4.2.1)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply code, an enhanced status code (empty where none belongs), and lines of text.

    `wire` is the reply as it is sent: `250-` before every line but the last.
    """

    code: int
    status: str
    lines: tuple[str, ...]
    wire: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wire", self._on_the_wire())

    @property
    def is_error(self) -> bool:
        return self.code >= ERROR

    def _on_the_wire(self) -> bytes:
        prefix = f"{self.status} " if self.status else ""
        text = "".join(f"{self.code}-{prefix}{line}\r\n" for line in self.lines[:-1])
        return f"{text}{self.code} {prefix}{self.lines[-1]}\r\n".encode("ascii", "replace")


def reply(code: int, status: str, text: str) -> Reply:
    """A reply of one line."""
    return Reply(code, status, (text,))


OK = reply(250, "2.0.0", "Ok")
SENDER_OK = reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK = reply(250, "2.1.5", "Recipient ok")
BYE = reply(221, "2.0.0", "Bye")
SEND_CONTENT = reply(354, "", "End data with <CR><LF>.<CR><LF>")
READY_FOR_TLS = reply(220, "2.0.0", "Ready to start TLS")
CANNOT_VERIFY = reply(252, "2.5.0", "Cannot verify; send a message and see")
TIMED_OUT = reply(421, "4.4.2", "Time-out; closing the connection")
SHUTTING_DOWN = reply(421, "4.3.2", "The service is shutting down; try again later")
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors; closing the connection")
TOO_MANY_COMMANDS = reply(421, "4.7.0", "Too many commands without a message; closing")
TOO_MANY_CONNECTIONS = reply(421, "4.7.0", "Too many connections; try again later")
MAKING_ROOM = reply(421, "4.3.2", "Too many connections; closing idle ones; try again later")
NOT_READY = reply(421, "4.3.0", "The service is not available; try again later")
NO_STORAGE = reply(452, "4.3.1", "Insufficient system storage; try again later")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients; send the rest in another message")
INTERNAL_ERROR = reply(451, "4.3.0", "Internal error; try again later")
LINE_TOO_LONG = reply(500, "5.5.2", "Line too long")
BARE_LINE_FEED = reply(500, "5.5.2", "A line must end with CR LF")
NOT_TEXT = reply(500, "5.5.2", "Not a line of printable ASCII or UTF-8")
UNKNOWN_COMMAND = reply(500, "5.5.2", "Unknown command")
BAD_PARAMETER = reply(501, "5.5.4", "Bad or missing argument")
NO_ARGUMENT_ALLOWED = reply(501, "5.5.4", "This command takes no argument")
NOT_IMPLEMENTED = reply(502, "5.5.1", "Command not implemented")
SAY_HELLO = reply(503, "5.5.1", "Say EHLO first")
SENDER_ALREADY_GIVEN = reply(503, "5.5.1", "Sender already given")
MAIL_FIRST = reply(503, "5.5.1", "MAIL first")
TLS_ALREADY = reply(503, "5.5.1", "TLS is already active")
NO_RECIPIENTS = reply(554, "5.5.1", "No valid recipients")
BARE_LINE_END = reply(550, "5.6.0", "Message refused: a line ends with a bare CR or LF")
TOO_LARGE = reply(552, "5.3.4", "Message too large")
HEADER_TOO_LARGE = reply(552, "5.3.4", "The header section is too large")
TOO_MANY_HOPS = reply(554, "5.4.6", "Too many hops: the message goes round in a circle")
NO_SUCH_RECIPIENT = reply(550, "5.1.1", "No such recipient here")
TLS_REQUIRED = reply(530, "5.7.0", "Must issue a STARTTLS command first")
CLIENT_REFUSED = reply(550, "5.7.1", "Mail from this client is not accepted")
CLIENT_BLOCKED = reply(554, "5.7.1", "Mail from this client is not accepted")
NO_RELAYING = reply(550, "5.7.1", "Routed addresses are not accepted; no relaying")
SMTPUTF8_NEEDED = reply(553, "5.6.7", "A non-ASCII address needs SMTPUTF8 at MAIL")
