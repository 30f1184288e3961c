"""Signing in and out, and the password for it."""

import logging
import re
from dataclasses import replace

from starlette.responses import RedirectResponse, Response

from sendback.aws.arn import ROOT_USER
from sendback.console.call import Page, PageCall, segment
from sendback.console.errors import PageError, not_found, not_permitted
from sendback.console.forms import Form
from sendback.service.access.accounts import AccountError
from sendback.service.access.passwords import LONGEST, SHORTEST
from sendback.service.access.sessions import (
    ATTEMPTS_IN,
    Credentials,
    SignInError,
    TooManyAttemptsError,
)

log = logging.getLogger(__name__)

_START = "/console/mail"
_SECRETS = frozenset({"password", "secret", "token", "current", "new", "again"})
# A path of the console: no host, no second slash, nothing that a browser would read as one.
_LOCAL = re.compile(r"/console/(?!login|logout)[!-.0-;=?-\[\]_a-z~][!-;=?-\[\]_a-z~]{0,1500}")
_MANAGE = "sendback:ManageUsers"


async def show_login(call: PageCall) -> Response:
    """Show the forms for a password and for an access key."""
    if call.account_id:
        return RedirectResponse(_next(call.text("next")), 303)
    return _login(call, Form())


async def sign_in(call: PageCall) -> Response:
    """Begin a session, and return to the page that was asked for."""
    form, services, client = call.form, call.services, call.viewer.origin.source_ip
    by_key = form.text("by") == "key"
    given = Credentials(
        account_id=form.text("account").strip() or services.settings.account_id,
        user=form.text("user").strip() or ROOT_USER,
        password=form.text("password"),
    )
    if by_key:
        given = Credentials(
            access_key=form.text("access_key").strip() or "none",
            secret=form.text("secret").strip(),
            token=form.text("token").strip(),
        )
    try:
        session = await services.sessions.sign_in(given, client)
    except SignInError as error:
        log.info("login_failed name=%s client=%s", given.name[:100], client)
        is_limited = isinstance(error, TooManyAttemptsError)
        field = "" if is_limited else "secret" if by_key else "password"
        kept = _without_secrets(form).with_errors({field: str(error)})
        response = _login(call, kept, 429 if is_limited else 400)
        if is_limited:
            response.headers["Retry-After"] = str(int(ATTEMPTS_IN.total_seconds()))
        return response
    call.sessions.append(session)
    caller = await services.sessions.find(session)
    if caller is not None:
        how = f"access key {given.access_key}" if by_key else "password"
        await services.audit.record(caller, client, "/login", f"Signed in by {how}.")
    return RedirectResponse(_next(form.text("next")), 303)


async def sign_out(call: PageCall) -> Response:
    """End the session."""
    if not call.viewer.signed_in:
        return RedirectResponse(_START, 303)
    await call.services.sessions.sign_out(call.viewer.session)
    return RedirectResponse("/console/login?left=1", 303)


async def show_own_password(call: PageCall) -> Response:
    """Show the form for one's own password."""
    return await _own_password(call, Form())


async def change_own_password(call: PageCall) -> Response:
    """Change one's own password; one's sessions end, but this one."""
    form, viewer, passwords = call.form, call.viewer, call.services.passwords
    if not viewer.signed_in:
        return await _own_password(call, Form())
    account_id, user, new = call.account_id, viewer.name, form.text("new")
    errors = _errors_of(form) or await _errors_of_current(call)
    if errors:
        return await _own_password(call, _without_secrets(form).with_errors(errors), 400)
    await passwords.set(account_id, user, new)
    sessions = call.services.sessions
    if not await sessions.find(viewer.session):
        call.sessions.append(await sessions.begin_by_password(account_id, user, new))
    return call.go("/password", note="Your password is changed. Your other sessions have ended.")


async def show_password_of(call: PageCall) -> Response:
    """Show the form for the password of a user."""
    if _is_own(call):
        return call.go("/password")
    return await _password_of(call, Form())


async def change_password_of(call: PageCall) -> Response:
    """Set or delete the password of a user."""
    account_id, user = _allowed(call)
    form, passwords, back = call.form, call.services.passwords, _path_of(account_id, user)
    if form.text("do") == "delete":
        if not await passwords.delete(account_id, user):
            raise not_found("password")
        return call.go(back, note=f"The console password of {user} is deleted.")
    errors = _errors_of(form)
    if not errors:
        try:
            await passwords.set(account_id, user, form.text("new"))
        except AccountError as error:
            errors["new"] = str(error)
    if errors:
        return await _password_of(call, _without_secrets(form).with_errors(errors), 400)
    return call.go(back, note=f"The console password of {user} is set. Its sessions have ended.")


def _login(call: PageCall, form: Form, status: int = 200) -> Response:
    target = form.text("next") or call.text("next")
    return call.page(
        "access/login.html",
        status,
        form=form,
        next=_next(target),
        by_key=form.text("by") == "key",
        first_account=call.services.settings.account_id,
    )


async def _own_password(call: PageCall, form: Form, status: int = 200) -> Response:
    viewer = call.viewer
    has_one = viewer.signed_in and await call.services.passwords.has_one(
        call.account_id, viewer.name
    )
    return call.page(
        "access/password.html",
        status,
        form=form,
        user=viewer.name,
        action="/password",
        has_password=has_one,
        is_own=True,
    )


async def _password_of(call: PageCall, form: Form, status: int = 200) -> Response:
    account_id, user = _allowed(call)
    services = call.services
    known = {entry.name for entry in await services.accounts.users(account_id)}
    if user != ROOT_USER and user not in known:
        raise not_found("user")
    return call.page(
        "access/password.html",
        status,
        form=form,
        user=user,
        action=_path_of(account_id, user),
        has_password=await services.passwords.has_one(account_id, user),
        is_own=False,
    )


def _path_of(account_id: str, user: str) -> str:
    return f"/accounts/{segment(account_id)}/users/{segment(user)}/password"


def _allowed(call: PageCall) -> tuple[str, str]:
    """Return the account and the user of the path. Raise `PageError` for those of others."""
    account_id, user, viewer = call.path["account"], call.path["user"], call.viewer
    if viewer.is_operator:
        return account_id, user
    if account_id != call.account_id:
        raise not_found("account")
    if viewer.name != ROOT_USER:
        if viewer.caller.policies is None:
            raise not_permitted(_MANAGE)
        call.permit(_MANAGE)
    if _is_own(call):
        raise PageError(403, "This is your own password", "Change it on the page Your password.")
    return account_id, user


def _is_own(call: PageCall) -> bool:
    viewer = call.viewer
    own = (call.account_id, viewer.name)
    return viewer.signed_in and own == (call.path["account"], call.path["user"])


def _errors_of(form: Form) -> dict[str, str]:
    """Return what is wrong with a new password."""
    new = form.text("new")
    if not SHORTEST <= len(new) <= LONGEST:
        return {"new": f"A console password has {SHORTEST} to {LONGEST} characters."}
    if new != form.text("again"):
        return {"again": "The two are not the same."}
    return {}


async def _errors_of_current(call: PageCall) -> dict[str, str]:
    """Return what is wrong with the current password, if there is one."""
    services, viewer = call.services, call.viewer
    account_id, user = call.account_id, viewer.name
    if not await services.passwords.has_one(account_id, user):
        return {}
    given = Credentials(account_id, user)
    try:
        await services.sessions.count_attempt(given, viewer.origin.source_ip)
    except TooManyAttemptsError as error:
        return {"current": str(error)}
    is_right = await services.passwords.verify(account_id, user, call.form.text("current"))
    return {} if is_right else {"current": "This is not your password."}


def _without_secrets(form: Form) -> Form:
    """Return the form as it may be shown again."""
    return replace(form, pairs=tuple(pair for pair in form.pairs if pair[0] not in _SECRETS))


def _next(path: str) -> str:
    """Return where to go after the login: only to a page of the console."""
    is_local = _LOCAL.fullmatch(path) is not None and "//" not in path
    return path if is_local else _START


PAGES = (
    Page("GET", "/login", show_login, for_all=True),
    Page("POST", "/login", sign_in, for_all=True),
    Page("POST", "/logout", sign_out),
    Page("GET", "/password", show_own_password),
    Page("POST", "/password", change_own_password),
    Page("GET", "/accounts/{account}/users/{user}/password", show_password_of),
    Page("POST", "/accounts/{account}/users/{user}/password", change_password_of),
)
