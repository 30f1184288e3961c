"""Who uses the console: a user of an account, with what its policies permit."""

from dataclasses import dataclass

from sendback.service.access.caller import Caller, CallOrigin


@dataclass(frozen=True, slots=True)
class Viewer:
    """A user who is signed in, or the developer on loopback.

    `session` identifies the browser: tokens against forged requests belong to it. `is_operator`:
    may see and change what concerns all accounts.
    """

    caller: Caller
    origin: CallOrigin
    session: str
    is_operator: bool
    signed_in: bool = False

    @property
    def account_id(self) -> str:
        """The account whose mail, rules and identities are shown."""
        return self.caller.account_id

    @property
    def name(self) -> str:
        """The user's name."""
        return self.caller.user_name
