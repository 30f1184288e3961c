"""Mail that is received without a connection: what is given, and the replies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class InjectedMail:
    """A mail with the envelope that a client would give. `sender` is empty for `<>`.

    `parameters` are parameters of MAIL, such as `BODY=8BITMIME`.
    """

    content: bytes
    sender: str
    recipients: tuple[str, ...]
    client_ip: str
    helo: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InjectionReply:
    """A reply of the server: its code, its enhanced status code (or empty), and all of it."""

    code: int
    status: str
    text: str

    @property
    def is_refusal(self) -> bool:
        return self.code >= 400  # noqa: PLR2004 - RFC 5321 §4.2.1


@dataclass(frozen=True, slots=True)
class InjectionResult:
    """The last reply, those to the recipients, and the message ID if the mail was accepted."""

    reply: InjectionReply
    recipients: Mapping[str, InjectionReply] = field(default_factory=dict)
    message_id: str | None = None


class Injector(Protocol):
    """Receives a mail as from a client."""

    async def inject(self, mail: InjectedMail) -> InjectionResult: ...
