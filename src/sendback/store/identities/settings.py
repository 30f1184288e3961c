"""The settings of identities: DKIM, MAIL FROM, notifications."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

from sqlalchemy import Connection, insert, select, update

from sendback.store.engine.tables import identity_settings
from sendback.store.identities.checks import CheckKind, IdentityCheck, ask_check, drop_check


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
    """Replace an identity's settings by what `change` returns for them, and return these."""

    account_id: str
    identity: str
    change: Callable[[IdentitySettings], IdentitySettings]

    def __call__(self, connection: Connection, /) -> IdentitySettings:
        before = FindSettings(self.account_id, (self.identity,))(connection)
        settings = self.change(before.get(self.identity, DEFAULTS))
        key = {"account_id": self.account_id, "identity": self.identity}
        values = {"settings": json.dumps(asdict(settings))}
        if self.identity in before:
            where = [identity_settings.c[name] == value for name, value in key.items()]
            connection.execute(update(identity_settings).where(*where).values(values))
        else:
            connection.execute(insert(identity_settings), {**key, **values})
        return settings


@dataclass(frozen=True, slots=True)
class SetMailFrom:
    """Set the MAIL FROM domain and check its MX; remove both when `domain` is empty.

    `behavior` None keeps the current setting. SES API: SetIdentityMailFromDomain.
    """

    account_id: str
    identity: str
    domain: str
    behavior: str | None
    check: IdentityCheck

    def __call__(self, connection: Connection, /) -> None:
        before = FindSettings(self.account_id, (self.identity,))(connection)
        old = before.get(self.identity, DEFAULTS)
        behavior = self.behavior or (old if self.domain else DEFAULTS).behavior_on_mx_failure
        new = replace(old, mail_from_domain=self.domain, behavior_on_mx_failure=behavior)
        ChangeSettings(self.account_id, self.identity, lambda _: new)(connection)
        if self.domain != old.mail_from_domain:
            drop_check(connection, self.account_id, self.identity, CheckKind.MAIL_FROM)
        if self.domain:
            ask_check(connection, self.check)
