"""The services that the API uses."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sendback.inspection.calls import Call
from sendback.inspection.errors import bad_parameter
from sendback.inspection.waiting import Waiting
from sendback.service.access.accounts import Accounts
from sendback.service.events.bus import EventBus
from sendback.service.faults.faults import Faults
from sendback.service.inspection import MailInspection
from sendback.service.receiving.injection import Injector
from sendback.service.rules.control import ProcessingControl


@dataclass(frozen=True, slots=True)
class ServerControl:
    """What changes the whole server: its clock, and all its data.

    `by_mx`: the server delivers real mail.
    """

    now: Callable[[], datetime]
    advance: Callable[[timedelta], Awaitable[None]]
    reset: Callable[[], Awaitable[None]]
    workers: int
    by_mx: bool


@dataclass(frozen=True, slots=True)
class InspectionServices:
    """The services, and the first account and the region of the server."""

    accounts: Accounts
    mail: MailInspection
    messages: ProcessingControl
    injector: Callable[[], Injector]
    events: EventBus
    waiting: Waiting
    faults: Faults
    control: ServerControl
    account_id: str
    region: str

    async def account(self, call: Call) -> str:
        """Return the account of a call. Raise `ApiError` for one that does not exist."""
        given = call.text("account")
        if given is None or given == self.account_id:
            return self.account_id
        if given not in {account.account_id for account in await self.accounts.list()}:
            raise bad_parameter("account", f"there is no account {given}")
        return given
