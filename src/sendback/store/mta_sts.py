"""MTA-STS policies that domains have published (RFC 8461), for as long as they say."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.tables import mta_sts_policies
from sendback.store.values import KeptStsPolicy


@dataclass(frozen=True, slots=True)
class FindStsPolicy:
    """The domain's policy, perhaps an expired one, or None."""

    domain: str

    def __call__(self, connection: Connection, /) -> KeptStsPolicy | None:
        query = select(mta_sts_policies).where(mta_sts_policies.c.domain == self.domain)
        row = connection.execute(query).first()
        if row is None:
            return None
        return KeptStsPolicy(
            domain=row.domain,
            policy_id=row.policy_id,
            policy=row.policy,
            fetched_at=from_milliseconds(row.fetched_at),
            expires_at=from_milliseconds(row.expires_at),
        )


@dataclass(frozen=True, slots=True)
class KeepStsPolicy:
    """Takes the place of the domain's policy."""

    policy: KeptStsPolicy

    def __call__(self, connection: Connection, /) -> None:
        of_domain = mta_sts_policies.c.domain == self.policy.domain
        connection.execute(delete(mta_sts_policies).where(of_domain))
        values = {
            "domain": self.policy.domain,
            "policy_id": self.policy.policy_id,
            "policy": self.policy.policy,
            "fetched_at": to_milliseconds(self.policy.fetched_at),
            "expires_at": to_milliseconds(self.policy.expires_at),
        }
        connection.execute(insert(mta_sts_policies), values)


def forget_sts_policies(connection: Connection, before: datetime) -> int:
    """Deletes policies that had expired by then; answers how many."""
    where = mta_sts_policies.c.expires_at < to_milliseconds(before)
    return connection.execute(delete(mta_sts_policies).where(where)).rowcount
