"""SMTP replies with their enhanced status codes (RFC 5321 §4.2, RFC 2034, RFC 3463). Pure."""

from dataclasses import dataclass, field

from sendback.errors import SendbackError

ERROR = 500  # and above: permanent failures (RFC 5321 §4.2.1)
_LAST = {221, 421}  # the server closes the connection (RFC 5321 §4.2.3)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply code, an enhanced status code (empty where none belongs), and lines of text.

    `wire` is the reply as it is sent: `250-` before every line but the last. `is_last` is whether
    the connection is closed after it.
    """

    code: int
    status: str
    lines: tuple[str, ...]
    wire: bytes = field(init=False, compare=False, repr=False)
    is_last: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wire", self._encode())
        object.__setattr__(self, "is_last", self.code in _LAST)

    @property
    def is_error(self) -> bool:
        return self.code >= ERROR

    @property
    def text(self) -> str:
        """The reply as one line: code, enhanced status code, text."""
        return " ".join(filter(None, (str(self.code), self.status, *self.lines)))

    def _encode(self) -> bytes:
        prefix = f"{self.status} " if self.status else ""
        text = "".join(f"{self.code}-{prefix}{line}\r\n" for line in self.lines[:-1])
        return f"{text}{self.code} {prefix}{self.lines[-1]}\r\n".encode("ascii", "replace")


class CommandError(SendbackError):
    """The command is refused with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.lines[0])
        self.reply = reply


def make_reply(code: int, status: str, text: str) -> Reply:
    """Return a reply of one line."""
    return Reply(code, status, (text,))


OK = make_reply(250, "2.0.0", "Ok")
SENDER_OK = make_reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK = make_reply(250, "2.1.5", "Recipient ok")
BYE = make_reply(221, "2.0.0", "Bye")
SEND_CONTENT = make_reply(354, "", "End data with <CR><LF>.<CR><LF>")
READY_FOR_TLS = make_reply(220, "2.0.0", "Ready to start TLS")
CANNOT_VERIFY = make_reply(252, "2.5.0", "Cannot VRFY user; use RCPT to check a recipient")
TIMED_OUT = make_reply(421, "4.4.2", "Timeout; closing connection")
SHUTTING_DOWN = make_reply(421, "4.3.2", "Service is shutting down; try again later")
TOO_MANY_ERRORS = make_reply(421, "4.7.0", "Too many errors; closing connection")
TOO_MANY_COMMANDS = make_reply(
    421, "4.7.0", "Too many commands without a message; closing connection"
)
TOO_MANY_CONNECTIONS = make_reply(421, "4.7.0", "Too many connections; try again later")
CONNECTION_REPLACED = make_reply(
    421, "4.3.2", "Too many connections; closing idle connection; try again later"
)
NOT_AVAILABLE = make_reply(421, "4.3.0", "Service not available; try again later")
NO_STORAGE = make_reply(452, "4.3.1", "Insufficient system storage; try again later")
TOO_MANY_RECIPIENTS = make_reply(
    452, "4.5.3", "Too many recipients; send the rest in another message"
)
INTERNAL_ERROR = make_reply(451, "4.3.0", "Internal error; try again later")
LINE_TOO_LONG = make_reply(500, "5.5.2", "Line too long")
BARE_LINE_FEED = make_reply(500, "5.5.2", "Command line must end with <CR><LF>")
NOT_TEXT = make_reply(500, "5.5.2", "Command line must be printable ASCII or UTF-8")
UNKNOWN_COMMAND = make_reply(500, "5.5.2", "Unknown command")
BAD_ARGUMENT = make_reply(501, "5.5.4", "Invalid or missing argument")
NO_ARGUMENT_ALLOWED = make_reply(501, "5.5.4", "Command takes no argument")
NOT_IMPLEMENTED = make_reply(502, "5.5.1", "Command not implemented")
GREETING_REQUIRED = make_reply(503, "5.5.1", "Send EHLO first")
SENDER_ALREADY_GIVEN = make_reply(503, "5.5.1", "Sender already given")
MAIL_REQUIRED = make_reply(503, "5.5.1", "Send MAIL first")
TLS_ALREADY = make_reply(503, "5.5.1", "TLS is already active")
NO_RECIPIENTS = make_reply(554, "5.5.1", "No valid recipients")
BARE_LINE_END = make_reply(550, "5.6.0", "Message refused: it contains a bare CR or LF")
TOO_LARGE = make_reply(552, "5.3.4", "Message too large")
HEADER_TOO_LARGE = make_reply(552, "5.3.4", "The header section is too large")
TOO_MANY_HOPS = make_reply(554, "5.4.6", "Too many hops; possible mail loop")
NO_SUCH_RECIPIENT = make_reply(550, "5.1.1", "No such recipient here")
TLS_REQUIRED = make_reply(530, "5.7.0", "Must issue a STARTTLS command first")
RECIPIENT_REFUSED = make_reply(550, "5.7.1", "Mail from this client is not accepted")
CLIENT_REFUSED = make_reply(554, "5.7.1", "Mail from this client is not accepted")
NO_RELAYING = make_reply(550, "5.7.1", "Source routes are not accepted; relaying denied")
SMTPUTF8_REQUIRED = make_reply(553, "5.6.7", "Non-ASCII address requires SMTPUTF8 in MAIL")
