"""The cache of the MTA-STS policies of domains (RFC 8461)."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.engine.locking import put_row
from sendback.store.engine.sweeping import SweepStep, Swept, delete_some
from sendback.store.engine.tables import mta_sts_policies


@dataclass(frozen=True, slots=True)
class CachedStsPolicy:
    """A domain's MTA-STS policy as fetched (RFC 8461 §3.2), and the ID in its DNS record (§3.1)."""

    domain: str
    policy_id: str
    policy: str
    fetched_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class FindStsPolicy:
    """Return the domain's cached policy, which may have expired, or None."""

    domain: str

    def __call__(self, connection: Connection, /) -> CachedStsPolicy | None:
        query = select(mta_sts_policies).where(mta_sts_policies.c.domain == self.domain)
        row = connection.execute(query).first()
        if row is None:
            return None
        return CachedStsPolicy(
            domain=row.domain,
            policy_id=row.policy_id,
            policy=row.policy,
            fetched_at=from_milliseconds(row.fetched_at),
            expires_at=from_milliseconds(row.expires_at),
        )


@dataclass(frozen=True, slots=True)
class PutStsPolicy:
    """Cache a policy, replacing the domain's cached one."""

    policy: CachedStsPolicy

    def __call__(self, connection: Connection, /) -> None:
        values = {
            "policy_id": self.policy.policy_id,
            "policy": self.policy.policy,
            "fetched_at": to_milliseconds(self.policy.fetched_at),
            "expires_at": to_milliseconds(self.policy.expires_at),
        }
        put_row(connection, mta_sts_policies, {"domain": self.policy.domain}, values)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetStsPolicies(SweepStep):
    """Delete policies that expired before `before`."""

    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        has_expired = mta_sts_policies.c.expires_at < to_milliseconds(self.before)
        key = (mta_sts_policies.c.domain,)
        return delete_some(connection, mta_sts_policies, key, has_expired)
