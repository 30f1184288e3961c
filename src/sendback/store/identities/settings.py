"""The settings of identities: DKIM, MAIL FROM, notifications."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

from sqlalchemy import Connection, select

from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.locking import lock_account, put_row
from sendback.store.engine.tables import identity_settings
from sendback.store.identities.checks import CheckKind, IdentityCheck, ask_check, drop_check
from sendback.store.identities.identities import find_identities


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """The settings of an identity, with SES's defaults.

    `topics` and `headers` are by SES's NotificationType: Bounce, Complaint, Delivery.
    """

    dkim_enabled: bool = False
    mail_from_domain: str = ""
    behavior_on_mx_failure: str = "UseDefaultValue"
    forwarding_enabled: bool = True
    topics: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, bool] = field(default_factory=dict)


DEFAULTS = IdentitySettings()


@dataclass(frozen=True, slots=True)
class FindSettings:
    """Return by name the settings of those of the account's identities that have any set."""

    account_id: str
    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> Mapping[str, IdentitySettings]:
        query = select(identity_settings).where(
            identity_settings.c.account_id == self.account_id,
            identity_settings.c.identity.in_(self.names),
        )
        rows = connection.execute(query)
        return {row.identity: IdentitySettings(**json.loads(row.settings)) for row in rows}


@dataclass(frozen=True, slots=True)
class ChangeSettings:
    """Replace an identity's settings by what `change` returns for them, and return these.

    Raises `NotFoundError` when the account does not have the identity `of`: this one, or the domain
    of an address. Otherwise settings could be left behind by the deletion of an identity.
    """

    account_id: str
    identity: str
    change: Callable[[IdentitySettings], IdentitySettings]
    of: str

    def __call__(self, connection: Connection, /) -> IdentitySettings:
        lock_account(connection, self.account_id)
        if not find_identities(connection, self.account_id, (self.of,)):
            raise NotFoundError("identity", self.of)
        before = FindSettings(self.account_id, (self.identity,))(connection)
        settings = self.change(before.get(self.identity, DEFAULTS))
        key = {"account_id": self.account_id, "identity": self.identity}
        put_row(connection, identity_settings, key, {"settings": json.dumps(asdict(settings))})
        return settings


@dataclass(frozen=True, slots=True)
class SetMailFrom:
    """Set the MAIL FROM domain and check its MX; remove both when `domain` is empty.

    `behavior` None keeps the current setting. Raises `NotFoundError`. SES API:
    SetIdentityMailFromDomain.
    """

    account_id: str
    identity: str
    domain: str
    behavior: str | None
    check: IdentityCheck

    def __call__(self, connection: Connection, /) -> None:
        lock_account(connection, self.account_id)
        before = FindSettings(self.account_id, (self.identity,))(connection)
        old = before.get(self.identity, DEFAULTS)
        behavior = self.behavior or (old if self.domain else DEFAULTS).behavior_on_mx_failure
        new = replace(old, mail_from_domain=self.domain, behavior_on_mx_failure=behavior)
        ChangeSettings(self.account_id, self.identity, lambda _: new, self.identity)(connection)
        if self.domain != old.mail_from_domain:
            drop_check(connection, self.account_id, self.identity, CheckKind.MAIL_FROM)
        if self.domain:
            ask_check(connection, self.check)
