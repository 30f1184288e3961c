"""Accounts, their users, and the policies that restrict users."""

import re
import secrets
from collections.abc import Sequence

from sendback.authz.policy import PolicyError, PolicyKind, compact, parse_policy
from sendback.aws.arn import ROOT_USER
from sendback.clock import Clock
from sendback.errors import SendbackError
from sendback.store.access.accounts import Account, AddAccount, ListAccounts, has_account
from sendback.store.access.users import (
    AddUser,
    DeleteUser,
    DeleteUserPolicy,
    FindUserPolicies,
    ListUsers,
    NamedPolicy,
    PutUserPolicy,
    User,
)
from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.store import Store

_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_NAME = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)  # IAM's rule for users and policies


class AccountError(SendbackError):
    """The request is invalid, or conflicts with what exists; `str` is the reason."""


class Accounts:
    """All accounts."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, account_id: str | None, name: str) -> str:
        """Add an account and return its ID, a new one if None is given. Raise `AccountError`."""
        made = account_id or f"{secrets.randbelow(9 * 10**11) + 10**11}"
        if not _ACCOUNT.fullmatch(made):
            raise AccountError(f"{made!r} is not an account ID: 12 digits")
        if not await self._store.write(AddAccount(made, self._clock.now(), name)):
            raise AccountError(f"there is an account {made} already")
        return made

    async def list(self) -> Sequence[Account]:
        return await self._store.read(ListAccounts())

    async def ensure(self, account_id: str) -> None:
        """Add the account unless it exists."""
        await self._store.write(AddAccount(account_id, self._clock.now()))

    async def create_user(self, account_id: str, name: str) -> None:
        """Raises `AccountError`."""
        check_name(name, "user")
        if name == ROOT_USER:
            raise AccountError("every account has its root user")
        await self._expect(account_id)
        if not await self._store.write(AddUser(account_id, name, self._clock.now())):
            raise AccountError(f"account {account_id} has a user {name} already")

    async def users(self, account_id: str) -> Sequence[User]:
        return await self._store.read(ListUsers(account_id))

    async def delete_user(self, account_id: str, name: str) -> bool:
        """Delete a user with its keys and policies; return whether there was one."""
        return await self._store.write(DeleteUser(account_id, name))

    async def put_policy(self, account_id: str, user: str, name: str, document: str) -> None:
        """Attach a policy. A user with policies may do only what they allow.

        Raises `AccountError`.
        """
        check_name(name, "policy")
        try:
            parse_policy(document, PolicyKind.USER)
        except PolicyError as error:
            raise AccountError(f"not a policy: {error}") from None
        policy = NamedPolicy(name, compact(document))
        try:
            await self._store.write(PutUserPolicy(account_id, user, policy))
        except NotFoundError:
            raise AccountError(f"account {account_id} has no user {user}") from None

    async def policies(self, account_id: str, user: str) -> Sequence[NamedPolicy]:
        return await self._store.read(FindUserPolicies(account_id, user))

    async def delete_policy(self, account_id: str, user: str, name: str) -> bool:
        """Delete a policy of a user; return whether there was one."""
        return await self._store.write(DeleteUserPolicy(account_id, user, name))

    async def _expect(self, account_id: str) -> None:
        if not await self._store.read(lambda connection: has_account(connection, account_id)):
            raise no_account(account_id)


def no_account(account_id: str) -> AccountError:
    """Return the error for an account that does not exist."""
    return AccountError(
        f"there is no account {account_id}: create it with "
        f"`sendback accounts create --id {account_id}`"
    )


def check_name(name: str, what: str) -> None:
    """Raises `AccountError`."""
    if not _NAME.fullmatch(name):
        raise AccountError(f"{name!r} is not a {what} name: letters, digits and +=,.@-_ (1 to 64)")
