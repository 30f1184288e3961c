"""Accounts, their users, keys and policies."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, timedelta
from typing import Any

from starlette.responses import Response

from sendback.aws.arn import ROOT_USER
from sendback.console.call import Page, PageCall, segment
from sendback.console.errors import PageError, not_found, not_permitted
from sendback.console.forms import Form
from sendback.service.access.accounts import AccountError
from sendback.service.access.keys import IssuedKey

_PERMISSION = "sendback:ManageUsers"
_MAX_ACCOUNTS = 1000
_LASTS = {str(hours): timedelta(hours=hours) for hours in (1, 12, 36)}


async def show_own(call: PageCall) -> Response:
    """Show the accounts to the operator, and to others their own."""
    if not call.viewer.is_operator:
        return call.go(f"/accounts/{call.account_id}")
    return await _accounts(call, Form())


async def create_account(call: PageCall) -> Response:
    """Add an account."""
    form = call.form
    try:
        made = await call.services.accounts.create(
            form.text("account_id") or None, form.text("name")
        )
    except AccountError as error:
        return await _accounts(call, form.with_errors({"account_id": str(error)}), 400)
    return call.go(f"/accounts/{made}", note=f"Account {made} is created.")


async def show_account(call: PageCall) -> Response:
    """Show the users and keys of an account."""
    return await _account(call, Form())


async def change_account(call: PageCall) -> Response:
    """Add or delete users, keys and policies."""
    account_id, what = _allowed(call), call.form.text("do")
    if what not in _CHANGES:
        raise PageError(400, "There is no such change", "Use the buttons of the page.")
    try:
        return await _CHANGES[what](call, account_id)
    except AccountError as error:
        field = "document" if what == "put_policy" else "user"
        return await _account(call, call.form.with_errors({field: str(error)}), status=400)


async def _create_user(call: PageCall, account_id: str) -> Response:
    user = call.form.text("user")
    await call.services.accounts.create_user(account_id, user)
    return call.go(f"/accounts/{account_id}", note=f"User {user} is created.")


async def _create_key(call: PageCall, account_id: str) -> Response:
    user = call.form.text("user") or ROOT_USER
    issued = await call.services.keys.create(account_id, user)
    call.notes.append(f"Key {issued.key.access_key} of {user} is created.")
    return await _account(call, Form(), issued=issued)


async def _create_temporary(call: PageCall, account_id: str) -> Response:
    user, lasts = call.form.text("user") or ROOT_USER, call.form.text("lasts")
    if lasts not in _LASTS:
        raise PageError(400, "There is no such duration", "Choose one of the list.")
    issued = await call.services.keys.create_temporary(account_id, user, _LASTS[lasts])
    call.notes.append(
        f"Temporary key {issued.key.access_key} of {user} is created, for {lasts} hours."
    )
    return await _account(call, Form(), issued=issued)


async def _put_policy(call: PageCall, account_id: str) -> Response:
    user, name = call.form.text("user"), call.form.text("policy_name")
    document = call.form.text("document")
    await call.services.accounts.put_policy(account_id, user, name, document)
    return call.go(f"/accounts/{account_id}", note=f"Policy {name} of {user} is written.")


async def _delete_user(call: PageCall, account_id: str) -> Response:
    user = call.form.text("user")
    deleted = await call.services.accounts.delete_user(account_id, user)
    return _done(call, f"User {user}", was_there=deleted)


async def _delete_key(call: PageCall, account_id: str) -> Response:
    key = call.form.text("key")
    deleted = await call.services.keys.delete(account_id, key)
    return _done(call, f"Key {key}", was_there=deleted)


async def _delete_policy(call: PageCall, account_id: str) -> Response:
    user, name = call.form.text("user"), call.form.text("policy_name")
    deleted = await call.services.accounts.delete_policy(account_id, user, name)
    return _done(call, f"Policy {name} of {user}", was_there=deleted)


async def _set_enabled(call: PageCall, account_id: str) -> Response:
    key, enabled = call.form.text("key"), call.form.text("do") == "enable_key"
    if not await call.services.keys.set_enabled(account_id, key, enabled=enabled):
        raise not_found("key")
    state = "enabled" if enabled else "disabled"
    return call.go(f"/accounts/{account_id}", note=f"Key {key} is {state}.")


_CHANGES = {
    "create_user": _create_user,
    "create_key": _create_key,
    "create_temporary": _create_temporary,
    "put_policy": _put_policy,
    "delete_user": _delete_user,
    "delete_key": _delete_key,
    "delete_policy": _delete_policy,
    "enable_key": _set_enabled,
    "disable_key": _set_enabled,
}


async def show_sending(call: PageCall) -> Response:
    """Show the quota of the viewer's account, and what it sent on each of the last days.

    It reads all bounces of two weeks, as the API does: so it is a page of its own.
    """
    account_id = _allowed(call)
    if account_id != call.account_id:
        raise not_found("account")
    quota = await call.ses("GetSendQuota", [])
    points = (await call.ses("GetSendStatistics", []))["SendDataPoints"]
    return call.page(
        "accounts/sending.html",
        quota=quota,
        days=_by_day(points),
        where=f"/accounts/{segment(account_id)}",
    )


def _by_day(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the sums of each day (UTC), the last one first."""
    days: dict[date, dict[str, Any]] = {}
    for point in points:
        day = point["Timestamp"].astimezone(UTC).date()
        sums = days.setdefault(day, {"day": day.isoformat(), "attempts": 0, "bounces": 0})
        sums["attempts"] += point["DeliveryAttempts"]
        sums["bounces"] += point["Bounces"]
    return [days[day] for day in sorted(days, reverse=True)]


def _done(call: PageCall, what: str, *, was_there: bool) -> Response:
    if not was_there:
        raise not_found(what.partition(" ")[0].lower())
    return call.go(f"/accounts/{call.path['account']}", note=f"{what} is deleted.")


def _allowed(call: PageCall) -> str:
    """Return the account that the page is about. Raise `PageError` for those of others."""
    account_id = call.path["account"]
    if account_id != call.account_id and not call.viewer.is_operator:
        raise not_found("account")
    if call.viewer.is_operator or call.viewer.name == ROOT_USER:
        return account_id
    if call.viewer.caller.policies is None:
        raise not_permitted(_PERMISSION)
    call.permit(_PERMISSION)
    return account_id


async def _accounts(call: PageCall, form: Form, status: int = 200) -> Response:
    found = await call.services.accounts.list()
    return call.page("accounts/list.html", status, accounts=found[:_MAX_ACCOUNTS], form=form)


async def _account(
    call: PageCall, form: Form, *, issued: IssuedKey | None = None, status: int = 200
) -> Response:
    account_id, services = _allowed(call), call.services
    known = {account.account_id: account for account in await services.accounts.list()}
    if account_id not in known:
        raise not_found("account")
    users = await services.accounts.users(account_id)
    return call.page(
        "accounts/account.html",
        status,
        account=known[account_id],
        users=users,
        keys=await services.keys.list(account_id),
        names=[(ROOT_USER, ROOT_USER), *((user.name, user.name) for user in users)],
        policies={
            user.name: await services.accounts.policies(account_id, user.name)
            for user in users[:100]
        },
        issued=issued,
        form=form,
        where=f"/accounts/{segment(account_id)}",
    )


PAGES = (
    Page("GET", "/accounts", show_own),
    Page("POST", "/accounts", create_account, for_operator=True),
    Page("GET", "/accounts/{account}", show_account),
    Page("POST", "/accounts/{account}", change_account),
    Page("GET", "/accounts/{account}/sending", show_sending),
)
