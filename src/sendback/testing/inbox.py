"""One address of a test, and what concerns it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sendback.testing.collection import WAIT_SECONDS

if TYPE_CHECKING:
    from sendback.testing.outgoing import Bounce
    from sendback.testing.received import ReceivedMail
    from sendback.testing.server import Sendback


class Inbox:
    """An address that receives mail; `str` returns it."""

    def __init__(self, server: Sendback, address: str) -> None:
        self._server = server
        self.address = address

    def __str__(self) -> str:
        return self.address

    def receive(self, message: Any = None, **options: Any) -> str:
        """Deliver a mail to the address; see `Sendback.receive`."""
        return self._server.receive(message, recipients=[self.address], **options)

    def wait_for(
        self, *, subject: str | None = None, timeout: float = WAIT_SECONDS
    ) -> ReceivedMail:
        """Return the first mail to the address. Raise `NotArrivedError`."""
        received = self._server.received
        return received.wait_for(recipient=self.address, subject=subject, timeout=timeout)

    def wait_for_bounce(self, *, timeout: float = WAIT_SECONDS) -> Bounce:
        """Return the first bounce of a mail to the address. Raise `NotArrivedError`."""
        return self._server.bounces.wait_for(recipient=self.address, timeout=timeout)
