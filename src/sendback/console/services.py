"""The services that the pages use."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sendback.config.settings import Settings
from sendback.service.access.accounts import Accounts
from sendback.service.access.audit import Audit
from sendback.service.access.authorization import Authorization
from sendback.service.access.caller import Caller, CallOrigin
from sendback.service.access.keys import Keys
from sendback.service.access.passwords import Passwords
from sendback.service.access.sessions import Sessions
from sendback.service.bouncing.send_bounce import Bouncing
from sendback.service.events.bus import EventBus
from sendback.service.faults.faults import Faults
from sendback.service.identities.attributes import IdentityAttributes
from sendback.service.identities.dns_checks import IdentityChecks
from sendback.service.identities.identities import Identities
from sendback.service.identities.policies import IdentityPolicies
from sendback.service.inspection import MailInspection
from sendback.service.outbox.control import OutboxControl
from sendback.service.receiving.injection import Injector
from sendback.service.rules.compiled import CompiledRuleSets
from sendback.service.rules.control import ProcessingControl
from sendback.service.rules.dry_run import DryRun
from sendback.service.rules.filters import Filters
from sendback.service.rules.rule_sets import RuleSets
from sendback.service.rules.targets import Ports, Targets
from sendback.store.engine.store import Store
from sendback.store.outbox.rows import OutboxMessage


class SesCalls(Protocol):
    """Calls operations of SES for a user who is known, with all checks of the API."""

    async def call(
        self, caller: Caller, origin: CallOrigin, pairs: Sequence[tuple[str, str]]
    ) -> Mapping[str, Any]:
        """Call the operation that `Action` names; return its output. Raise `SesError`."""
        ...

    async def preview_bounce(
        self, caller: Caller, origin: CallOrigin, pairs: Sequence[tuple[str, str]]
    ) -> OutboxMessage:
        """Return the bounce that SendBounce would send. Raise `SesError`."""
        ...


class Finding(Protocol):
    """What a check of `sendback doctor` finds: `verdict` is good, advice, problem or skipped."""

    @property
    def check(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def found(self) -> str: ...
    @property
    def advice(self) -> str: ...


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting in effect: its text without secrets, and where it is from."""

    name: str
    text: str
    origin: str
    about: str


@dataclass(frozen=True, slots=True)
class ConsoleServices:
    """The services of the process; functions make those that few pages need.

    `http` and `smtp` are the addresses of the server, as `host:port`.
    """

    settings: Settings
    now: Callable[[], datetime]
    http: str
    smtp: str
    store: Store
    ses: SesCalls
    accounts: Accounts
    keys: Keys
    authorization: Authorization
    mail: MailInspection
    messages: ProcessingControl
    outbox: OutboxControl
    bouncing: Bouncing
    rule_sets: RuleSets
    filters: Filters
    targets: Targets
    compiled: CompiledRuleSets
    identities: Identities
    identity_attributes: IdentityAttributes
    identity_policies: IdentityPolicies
    identity_checks: Callable[[], IdentityChecks]
    events: EventBus
    faults: Faults
    injector: Callable[[], Injector]
    ports: Callable[[], Ports]
    dry_run: Callable[[], DryRun]
    is_ready: Callable[[], Awaitable[bool]]
    passwords: Passwords
    sessions: Sessions
    audit: Audit
    setting_rows: Callable[[], Sequence[SettingRow]]
    doctor: Callable[[], Awaitable[Sequence[Finding]]] | None
