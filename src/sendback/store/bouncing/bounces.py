"""SendBounce's two units of work: what it reads, and what it writes.

Concurrent calls share their statements: one statement a table serves a whole group (see
`store/engine/transactions.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Self

from sqlalchemy import Connection

from sendback.store.access.accounts import acquire_slot
from sendback.store.access.users import NamedPolicy
from sendback.store.bouncing.calls import CallKey, claim_calls, find_calls, forget_calls
from sendback.store.engine.errors import RateLimitedError, RefusedError
from sendback.store.engine.locking import Place
from sendback.store.engine.transactions import BatchUnit
from sendback.store.identities.identities import find_verified
from sendback.store.identities.policies import find_identity_policies
from sendback.store.messages.messages import ReceivedMessage, find_messages
from sendback.store.outbox.queue import add_to_outbox
from sendback.store.outbox.rows import OutboxMessage

Key = tuple[str, str]  # account ID and the name of an identity of that account


@dataclass(frozen=True, slots=True)
class Found:
    """What a request needs from the store, read in one transaction.

    `repeated` is the MessageId of an earlier attempt at the same call. `messages` has the received
    message by account ID, for the accounts that have it. `verified` has the requested identities
    that are verified, and `policies` the policies of verified identities.
    """

    repeated: str | None
    messages: Mapping[str, ReceivedMessage]
    verified: frozenset[Key]
    policies: Mapping[Key, tuple[NamedPolicy, ...]]


@dataclass(frozen=True, slots=True)
class FindForBounce(BatchUnit[Found]):
    """Return what a request needs; concurrent requests share the queries."""

    message_id: str
    accounts: tuple[str, ...]
    identities: tuple[Key, ...]
    call: CallKey | None

    @classmethod
    def run_together(cls, connection: Connection, units: Sequence[Self]) -> Sequence[Found]:
        calls = find_calls(connection, {unit.call for unit in units if unit.call})
        copies = {(account, unit.message_id) for unit in units for account in unit.accounts}
        messages = find_messages(connection, copies)
        names = {identity for unit in units for identity in unit.identities}
        verified = find_verified(connection, names)
        policies = find_identity_policies(connection, verified)
        return [
            Found(
                repeated=calls.get(unit.call) if unit.call else None,
                messages={
                    account: messages[account, unit.message_id]
                    for account in unit.accounts
                    if (account, unit.message_id) in messages
                },
                verified=verified.intersection(unit.identities),
                policies=policies,
            )
            for unit in units
        ]


@dataclass(frozen=True, slots=True)
class QueueBounce(BatchUnit[str]):
    """Queue a bounce and record its call; return its MessageId.

    For a repeated call, return the MessageId of the first. Raises `RateLimitedError` when the
    account's last bounce is more recent than `interval`; None is no rate limit.
    """

    outgoing: OutboxMessage
    call: CallKey | None
    interval: timedelta | None

    place: ClassVar = Place.CALLS

    @classmethod
    def run_together(
        cls, connection: Connection, units: Sequence[Self]
    ) -> Sequence[str | RefusedError]:
        """Claim the calls first: of two nodes with one call, the second waits for the first."""
        first: dict[CallKey, str] = {}
        for unit in units:
            if unit.call:
                first.setdefault(unit.call, unit.outgoing.message_id)
        now = max(unit.outgoing.created_at for unit in units)
        calls = claim_calls(connection, first, now)
        results = [calls[unit.call] if unit.call else unit.outgoing.message_id for unit in units]
        new = [
            unit
            for unit, result in zip(units, results, strict=True)
            if result == unit.outgoing.message_id
        ]
        refused = cls._refused(connection, new)
        forget_calls(
            connection, [key for key, message_id in calls.items() if message_id in refused]
        )
        add_to_outbox(
            connection, [unit.outgoing for unit in new if unit.outgoing.message_id not in refused]
        )
        # A repetition of a refused call, in the same group, has its MessageId too.
        return [
            RateLimitedError(unit.outgoing.account_id) if result in refused else result
            for unit, result in zip(units, results, strict=True)
        ]

    @classmethod
    def _refused(cls, connection: Connection, units: Sequence[Self]) -> set[str]:
        """Return the MessageIds that the rate limit refuses; the accounts are locked in order."""
        in_order = sorted(units, key=lambda unit: unit.outgoing.account_id)
        return {
            unit.outgoing.message_id
            for unit in in_order
            if unit.interval
            and not acquire_slot(
                connection, unit.outgoing.account_id, unit.outgoing.created_at, unit.interval
            )
        }
