"""The units of work that request the verification of an identity, by mail or by DNS."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from sendback.store.identities.checks import IdentityCheck, ask_check
from sendback.store.identities.dkim_keys import DkimKey, add_dkim_keys, find_dkim_keys
from sendback.store.identities.identities import FindIdentities, Identity, PutIdentity
from sendback.store.identities.verification_mails import (
    UNLIMITED,
    VerificationLimits,
    check_verification_limits,
)
from sendback.store.outbox.queue import add_to_outbox
from sendback.store.outbox.rows import OutboxMessage


@dataclass(frozen=True, slots=True)
class RequestMailVerification:
    """Add an address, and queue the mail that `write` returns if it is not verified or `always`.

    Returns the stored identity, and the mail if one was queued. Raises `LimitReachedError`,
    `TooManyVerificationMailsError`.
    """

    identity: Identity
    write: Callable[[Identity], OutboxMessage]
    always: bool = False
    limits: VerificationLimits = UNLIMITED

    def __call__(self, connection: Connection, /) -> tuple[Identity, OutboxMessage | None]:
        identity = PutIdentity(self.identity)(connection)
        if identity.is_verified and not self.always:
            return identity, None
        asked = self.identity
        check_verification_limits(
            connection, self.limits, asked.account_id, asked.identity, asked.created_at
        )
        mail = self.write(identity)
        add_to_outbox(connection, [mail])
        return identity, mail


@dataclass(frozen=True, slots=True)
class RequestDnsVerification:
    """Add a domain with the `keys`, if any, and the DNS check of its token or its keys.

    The keys are added only if the domain's selectors are still `known`. Return the stored identity.
    Raise `LimitReachedError`.
    """

    identity: Identity
    check: IdentityCheck
    keys: tuple[DkimKey, ...] = ()
    known: frozenset[str] = frozenset()

    def __call__(self, connection: Connection, /) -> Identity:
        new = self.identity
        PutIdentity(new)(connection)
        # Of two concurrent calls, the first one's keys are used.
        if self.keys and self._selectors(connection) == self.known:
            add_dkim_keys(connection, self.keys)
        ask_check(connection, self.check)
        return FindIdentities(new.account_id, (new.identity,))(connection)[0]

    def _selectors(self, connection: Connection) -> set[str]:
        keys = find_dkim_keys(connection, self.identity.account_id, (self.identity.identity,))
        return {key.selector for key in keys}
