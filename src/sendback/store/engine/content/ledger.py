"""The ledger of contents that no message names: on their way in, or to be removed.

`content/__init__` has the theory of operation. A row is in the state `writing` while its content is
written, and `unused` once nothing may refer to the content any more.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Connection, delete, insert, select, text, update

from sendback.config.types import ContentAddress
from sendback.store.engine.locking import Place, add_missing
from sendback.store.engine.tables import content_stores, loose_contents

WRITING = "writing"
UNUSED = "unused"

_columns = loose_contents.c
_ADD_UNUSED = text(
    "INSERT INTO loose_contents (blob, state, since) VALUES (:blob, 'unused', :since) "
    "ON CONFLICT (blob) DO UPDATE SET state = 'unused'"
)


@dataclass(frozen=True, slots=True)
class ClaimContent:
    """Add a claim for content that is about to be written.

    `address` is that of an object store, which other nodes will look up.
    """

    place: ClassVar = Place.RECEIVING

    blob: str
    address: ContentAddress | None

    def __call__(self, connection: Connection, /) -> None:
        if self.address is not None:
            row = {"store_key": self.address.key, "url": self.address.public_url}
            add_missing(connection, content_stores, [row], content_stores.c.store_key)
        claim = {"blob": self.blob, "state": WRITING, "since": _now()}
        connection.execute(insert(loose_contents), claim)


def confirm_claims(connection: Connection, blobs: Collection[str]) -> frozenset[str]:
    """Delete the claims of contents that a message names from now on.

    Return the contents whose claim was withdrawn meanwhile: no message may name them. They are
    marked again, as their writer may have written them after they were removed.
    """
    if not blobs:
        return frozenset()
    claims = delete(loose_contents).where(_columns.blob.in_(blobs), _columns.state == WRITING)
    confirmed = set(connection.execute(claims.returning(_columns.blob)).scalars())
    lost = frozenset(blobs) - confirmed
    mark_unused(connection, lost)
    return lost


def mark_unused(connection: Connection, blobs: Collection[str]) -> None:
    """Record that these contents are to be removed."""
    if blobs:
        now = _now()
        connection.execute(_ADD_UNUSED, [{"blob": blob, "since": now} for blob in sorted(blobs)])


def in_ledger(connection: Connection, blobs: Collection[str]) -> frozenset[str]:
    """Return those of the contents that have a row here."""
    query = select(_columns.blob).where(_columns.blob.in_(blobs))
    return frozenset(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class WithdrawClaim:
    """Withdraw the claim of one content; return whether it may be removed now."""

    blob: str

    def __call__(self, connection: Connection, /) -> bool:
        claim = update(loose_contents).where(_columns.blob == self.blob, _columns.state == WRITING)
        connection.execute(claim.values(state=UNUSED))
        found = select(_columns.blob).where(_columns.blob == self.blob)
        return connection.execute(found).first() is not None


@dataclass(frozen=True, slots=True)
class WithdrawOldClaims:
    """Withdraw the claims made more than `seconds` ago: their writers have probably died."""

    seconds: float

    def __call__(self, connection: Connection, /) -> int:
        before = _now() - round(self.seconds * 1000)
        old = update(loose_contents).where(_columns.state == WRITING, _columns.since < before)
        return connection.execute(old.values(state=UNUSED)).rowcount


@dataclass(frozen=True, slots=True)
class FindUnused:
    """Return contents that are to be removed, behind the one named `after`, up to `limit`."""

    after: str
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[str]:
        query = (
            select(_columns.blob)
            .where(_columns.state == UNUSED, _columns.blob > self.after)
            .order_by(_columns.blob)
            .limit(self.limit)
        )
        return list(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class ForgetUnused:
    """Delete the records of contents that have been removed."""

    blobs: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> None:
        done = delete(loose_contents)
        connection.execute(done.where(_columns.blob.in_(self.blobs), _columns.state == UNUSED))


@dataclass(frozen=True, slots=True)
class FindStoreUrl:
    """Return the URL of an object store by its key, or None."""

    key: str

    def __call__(self, connection: Connection, /) -> str | None:
        query = select(content_stores.c.url).where(content_stores.c.store_key == self.key)
        url: str | None = connection.execute(query).scalar()
        return url


def _now() -> int:
    """Return Unix milliseconds of real time: a clock that tests move is no age of a claim."""
    return round(time.time() * 1000)
