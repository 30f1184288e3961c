"""Decisions on clients and recipients: what `Acceptance` returns, as SMTP replies."""

from typing import TypeAlias

from sendback.mail.address import Address
from sendback.service.receiving.acceptance import Acceptance, Decision, Receiver, Refusal
from sendback.smtp import replies
from sendback.smtp.replies import Reply
from sendback.store.engine.errors import StoreUnavailableError

# The accounts that receive a recipient's mail: the note that the machine carries.
Receivers: TypeAlias = tuple[Receiver, ...]

_REFUSALS = {
    Refusal.UNKNOWN: replies.NO_SUCH_RECIPIENT,
    Refusal.BLOCKED: replies.RECIPIENT_REFUSED,
    Refusal.TLS_REQUIRED: replies.TLS_REQUIRED,
}


class Decisions:
    """Decides on clients (by IP filters) and on their recipients."""

    def __init__(self, acceptance: Acceptance) -> None:
        self._acceptance = acceptance

    def known_client(self, client_ip: str) -> bool | None:
        """Return whether the client is admitted, or None when that has to be looked up."""
        return self._acceptance.known_admission(client_ip)

    async def client(self, client_ip: str) -> Reply | None:
        """Return the refusal of a client, or None when it is admitted."""
        try:
            admitted = await self._acceptance.admits(client_ip)
        except StoreUnavailableError:
            return replies.NOT_AVAILABLE
        return None if admitted else replies.CLIENT_REFUSED

    def known_recipient(
        self, recipient: Address, client_ip: str, *, encrypted: bool
    ) -> Receivers | Reply | None:
        """Return the receivers or a refusal, or None when they have to be looked up."""
        known = self._acceptance.known_decision(recipient, client_ip, encrypted=encrypted)
        return None if known is None else _reply(known)

    async def recipient(
        self, recipient: Address, client_ip: str, *, encrypted: bool
    ) -> Receivers | Reply:
        """Look up the receivers; return them or a refusal."""
        try:
            decision = await self._acceptance.decide(recipient, client_ip, encrypted=encrypted)
        except StoreUnavailableError:
            return replies.NO_STORAGE
        return _reply(decision)


def _reply(decision: Decision) -> Receivers | Reply:
    return _REFUSALS[decision] if isinstance(decision, Refusal) else decision
