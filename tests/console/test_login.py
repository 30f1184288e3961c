"""Signing in, sessions and their ends, passwords, and what a user may do then."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from sendback.service.access.sessions import Credentials, SignInError, TooManyAttemptsError
from tests.console.signing_in import FIRST_ACCOUNT, signed_in
from tests.partners.console import ConsoleClient, ShownPage
from tests.partners.server import Server

PASSWORD = "correct horse battery"
OTHER = "111122223333"


@pytest.fixture
def guarded(running: Callable[..., Server]) -> Server:
    """A server without the development key; root of the first account has a password."""
    server = running(development_key="false")
    give_password(server)
    return server


def give_password(
    server: Server, user: str = "root", password: str = PASSWORD, account: str = FIRST_ACCOUNT
) -> None:
    server.run(server.app.passwords.set(account, user, password))


def browser(server: Server) -> ConsoleClient:
    client = ConsoleClient(server.endpoint)
    client.get("/console/login")
    return client


def by_password(client: ConsoleClient, **fields: str) -> ShownPage:
    given = {"by": "password", "account": "", "user": "root", "password": PASSWORD, **fields}
    return client.post("/console/login", given)


def by_key(client: ConsoleClient, key: str, secret: str, token: str = "") -> ShownPage:
    given = {"by": "key", "access_key": key, "secret": secret, "token": token}
    return client.post("/console/login", given)


def is_in(client: ConsoleClient) -> bool:
    return client.get("/console/mail").path == "/console/mail"


# --- signing in ----------------------------------------------------------------------------------


def test_a_user_signs_in_with_a_password_and_sees_the_page_that_was_asked_for(guarded):
    client = ConsoleClient(guarded.endpoint)
    page = client.get("/console/bounces?state=held")
    assert page.path == "/console/login?next=%2Fconsole%2Fbounces%3Fstate%3Dheld"
    fields = page.form("/console/login")
    page = by_password(client, next=fields["next"])
    assert page.path == "/console/bounces?state=held"
    assert "root in 000000000000" in page.text


def test_a_user_signs_in_with_an_access_key(guarded):
    issued = guarded.issue(OTHER, "ann")
    client = browser(guarded)
    page = by_key(client, issued.key.access_key, issued.secret)
    assert page.path == "/console/mail"
    assert f"ann in {OTHER}" in page.text


def test_a_temporary_key_needs_its_session_token(guarded, clock):
    issued = guarded.run(
        guarded.app.keys.create_temporary(FIRST_ACCOUNT, "root", timedelta(hours=1))
    )
    key, secret, token = issued.key.access_key, issued.secret, issued.session_token or ""
    client = browser(guarded)
    assert by_key(client, key, secret).status == 400
    assert by_key(client, key, secret, "x" * len(token)).status == 400
    assert by_key(client, key, secret, token).status == 200
    clock.advance(timedelta(hours=1, seconds=1))
    assert not is_in(client)
    assert "has expired" in by_key(browser(guarded), key, secret, token).text


@pytest.mark.parametrize(
    "fields",
    [
        {"password": "wrong"},
        {"password": ""},
        {"password": "x" * 1000},
        {"user": "nobody"},
        {"user": "x" * 200},
        {"user": "a\0b"},
        {"account": OTHER},
        {"account": "not an account"},
    ],
)
def test_what_is_wrong_is_not_said(guarded, fields):
    page = by_password(browser(guarded), **fields)
    assert page.status == 400
    assert "The account, the user or the password is wrong." in page.text
    assert "password is wrong" in page.html
    for secret in ("wrong", "x" * 1000):
        assert f'value="{secret}"' not in page.html


@pytest.mark.parametrize(
    ("key", "secret"), [("AKIAUNKNOWN", "x"), ("test", "test"), ("", ""), ("a\0", "x")]
)
def test_an_unknown_key_and_the_key_that_all_know_do_not_sign_in(guarded, key, secret):
    assert by_key(browser(guarded), key, secret).status == 400


def test_the_development_key_does_not_sign_in_where_mail_is_real(running):
    server = running(outbound="mx", verification="proved")
    client = browser(server)
    assert by_key(client, "test", "test").status == 400
    assert not is_in(client)


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/console//evil.example",
        "/console/\\evil.example",
        "/\\evil.example",
        "/console/../x\r\nSet-Cookie: a=b",
        "/elsewhere",
        "/console/login?next=/console/login",
        "javascript:alert(1)",
    ],
)
def test_the_login_leads_to_pages_of_the_console_only(guarded, target):
    client = browser(guarded)
    assert by_password(client, next=target).path == "/console/mail"


def test_the_login_needs_its_token(guarded):
    client = browser(guarded)
    client.token = "0" * 64
    assert by_password(client).status == 403


def test_a_session_that_was_known_before_the_login_is_worth_nothing(guarded):
    client = browser(guarded)
    before = dict(client.cookies)
    by_password(client)
    assert client.cookies != before
    other = ConsoleClient(guarded.endpoint)
    other.cookies = before
    assert not is_in(other)


def test_who_has_signed_in_needs_no_login_page(guarded):
    client = signed_in(guarded)
    assert client.get("/console/login?next=/console/bounces").path == "/console/bounces"


def test_on_loopback_nobody_signs_in(server, console):
    assert console.get("/console/login").path == "/console/mail"
    assert "Nobody signs in here" in console.get("/console/password").text


# --- too many attempts ---------------------------------------------------------------------------


def test_attempts_are_limited_for_a_name_and_only_for_a_time(guarded, clock):
    client = browser(guarded)
    for _ in range(10):
        assert by_password(client, password="wrong").status == 400
    page = by_password(client)
    assert page.status == 429
    assert page.headers["retry-after"] == "900"
    assert "Try again in 15 minutes" in page.text
    guarded.issue(FIRST_ACCOUNT, "ann")
    give_password(guarded, "ann")
    assert by_password(browser(guarded), user="ann").status == 200
    clock.advance(timedelta(minutes=17))
    assert by_password(browser(guarded)).status == 200


def test_attempts_from_another_network_keep_nobody_out(guarded):
    sessions = guarded.app.console_sessions
    wrong = Credentials(FIRST_ACCOUNT, "root", "wrong")

    def tries(count: int, ip: str) -> Any:
        for _ in range(count):
            with pytest.raises(SignInError) as caught:
                guarded.run(sessions.sign_in(wrong, ip))
        return caught.value

    assert isinstance(tries(12, "2001:db8::1"), TooManyAttemptsError)
    assert isinstance(tries(1, "2001:db8::2"), TooManyAttemptsError)  # the same /64
    assert not isinstance(tries(1, "2001:db8:1::1"), TooManyAttemptsError)
    assert by_password(browser(guarded)).status == 200


def test_a_network_has_a_limit_for_all_names(guarded):
    client = browser(guarded)
    statuses = [by_password(client, user=f"user{n}", password="").status for n in range(52)]
    assert statuses[:50] == [400] * 50
    assert statuses[50:] == [429, 429]


def test_attempts_that_succeed_do_not_count(guarded):
    assert [by_password(browser(guarded)).status for _ in range(12)] == [200] * 12


def test_attempts_at_the_same_moment_do_not_slip_through(guarded):
    client = browser(guarded)

    def attempt(_: int) -> int:
        other = ConsoleClient(guarded.endpoint)
        other.cookies, other.token = dict(client.cookies), client.token
        return by_password(other, password="wrong").status

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(attempt, range(16)))
    assert statuses.count(400) == 10
    assert statuses.count(429) == 6


# --- the end of a session ------------------------------------------------------------------------


def test_signing_out_ends_the_session_in_the_store(guarded):
    client = signed_in(guarded)
    stolen = ConsoleClient(guarded.endpoint)
    stolen.cookies = dict(client.cookies)
    page = client.post("/console/logout")
    assert "You are signed out." in page.text
    assert not is_in(client)
    assert not is_in(stolen)


def test_a_session_that_is_not_used_ends(guarded, clock):
    client = signed_in(guarded)
    for _ in range(3):
        clock.advance(timedelta(hours=11))
        assert is_in(client)
    clock.advance(timedelta(hours=12, minutes=2))
    assert not is_in(client)


def test_a_session_ends_after_a_week(guarded, clock):
    client = signed_in(guarded)
    for _ in range(15):
        clock.advance(timedelta(hours=11))
        assert is_in(client)
    clock.advance(timedelta(hours=11))
    assert not is_in(client)


def test_a_form_of_a_session_that_has_ended_says_so(guarded, clock):
    client = signed_in(guarded)
    client.get("/console/domains")
    clock.advance(timedelta(days=8))
    page = client.post("/console/domains", {"domain": "example.net", "do": "pause"})
    assert page.path == "/console/login?ended=1"
    assert "Your session has ended, so nothing was changed." in page.text


def test_a_session_ends_with_its_key(guarded):
    issued = guarded.issue(FIRST_ACCOUNT, "ann")
    key = issued.key.access_key
    client = browser(guarded)
    by_key(client, key, issued.secret)
    keys = guarded.app.keys
    guarded.run(keys.set_enabled(FIRST_ACCOUNT, key, enabled=False))
    assert not is_in(client)
    guarded.run(keys.set_enabled(FIRST_ACCOUNT, key, enabled=True))
    assert is_in(client)
    guarded.run(keys.delete(FIRST_ACCOUNT, key))
    assert not is_in(client)


def test_a_session_ends_with_its_password(guarded):
    client, by_its_key = browser(guarded), signed_in(guarded)
    by_password(client)
    give_password(guarded, password="another password")
    assert not is_in(client)
    assert is_in(by_its_key)
    by_password(client := browser(guarded), password="another password")
    assert is_in(client)
    guarded.run(guarded.app.passwords.delete(FIRST_ACCOUNT, "root"))
    assert not is_in(client)


def test_a_session_ends_with_its_user(guarded):
    guarded.issue(FIRST_ACCOUNT, "ann")
    give_password(guarded, "ann")
    client, by_its_key = browser(guarded), signed_in(guarded, user="ann")
    by_password(client, user="ann")
    guarded.run(guarded.app.accounts.delete_user(FIRST_ACCOUNT, "ann"))
    assert not is_in(client)
    assert not is_in(by_its_key)
    guarded.run(guarded.app.accounts.create_user(FIRST_ACCOUNT, "ann"))
    give_password(guarded, "ann", "another password")
    assert not is_in(client)
    assert by_password(browser(guarded), user="ann").status == 400


def test_sessions_that_have_ended_are_deleted(guarded, clock):
    signed_in(guarded)
    clock.advance(timedelta(days=8))
    guarded.run(guarded.app.housekeeping.sweep())
    assert guarded.query("SELECT 1 FROM console_sessions") == []


def test_a_restart_signs_nobody_out(tmp_path):
    folder = tmp_path / "data"
    with Server(data_dir=folder, development_key="false") as first:
        client = signed_in(first)
    with Server(data_dir=folder, development_key="false") as second:
        other = ConsoleClient(second.endpoint)
        other.cookies = client.cookies
        assert is_in(other)


# --- policies ------------------------------------------------------------------------------------


def test_the_policies_of_the_user_hold_and_change_at_once(guarded):
    client = signed_in(guarded, user="ann")
    assert client.get("/console/mail").status == 200
    accounts = guarded.app.accounts
    deny = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sendback:ReadBounces",'
        '"Resource":"*"}]}'
    )
    guarded.run(accounts.put_policy(FIRST_ACCOUNT, "ann", "bounces", deny))
    assert client.get("/console/mail").status == 403
    assert client.get("/console/bounces").status == 200
    guarded.run(accounts.delete_policy(FIRST_ACCOUNT, "ann", "bounces"))
    assert client.get("/console/mail").status == 200


# --- passwords -----------------------------------------------------------------------------------


def test_a_user_changes_its_own_password(guarded):
    client, other = browser(guarded), browser(guarded)
    by_password(client)
    by_password(other)
    client.get("/console/password")
    fields = {"current": PASSWORD, "new": "a new long password", "again": "a new long password"}
    page = client.post("/console/password", fields)
    assert "Your password is changed" in page.text
    assert is_in(client)
    assert not is_in(other)
    assert by_password(browser(guarded)).status == 400
    assert by_password(browser(guarded), password="a new long password").status == 200


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"current": "wrong password"}, "This is not your password."),
        ({"new": "short", "again": "short"}, "A console password has 12 to 200 characters."),
        ({"again": "something different"}, "The two are not the same."),
        ({"new": "x" * 201, "again": "x" * 201}, "A console password has 12 to 200 characters."),
    ],
)
def test_a_password_that_cannot_be_set(guarded, fields, error):
    client = browser(guarded)
    by_password(client)
    client.get("/console/password")
    given = {"current": PASSWORD, "new": "a new long password", "again": "a new long password"}
    page = client.post("/console/password", {**given, **fields})
    assert page.status == 400
    assert error in page.text
    assert "a new long password" not in page.html
    assert by_password(browser(guarded)).status == 200


def test_root_gives_a_user_a_password_and_takes_it(guarded):
    client = signed_in(guarded, OTHER)
    guarded.issue(OTHER, "ann")
    path = f"/console/accounts/{OTHER}/users/ann/password"
    client.get(path)
    page = client.post(path, {"new": PASSWORD, "again": PASSWORD, "do": "set"})
    assert "The console password of ann is set" in page.text
    ann = browser(guarded)
    assert by_password(ann, account=OTHER, user="ann").status == 200
    client.get(path)
    page = client.post(path, {"do": "delete"})
    assert "The console password of ann is deleted" in page.text
    assert not is_in(ann)


def test_a_user_does_not_set_the_passwords_of_others(guarded):
    guarded.issue(OTHER, "bob")
    ann = signed_in(guarded, OTHER, "ann")
    ann.get("/console/password")
    body = {"new": PASSWORD, "again": PASSWORD, "do": "set"}
    assert ann.post(f"/console/accounts/{OTHER}/users/bob/password", body).status == 403
    assert ann.post(f"/console/accounts/{FIRST_ACCOUNT}/users/root/password", body).status == 404


def test_the_operator_gives_passwords_in_all_accounts(guarded):
    guarded.issue(OTHER, "ann")
    client = signed_in(guarded)
    path = f"/console/accounts/{OTHER}/users/ann/password"
    client.get(path)
    assert client.post(path, {"new": PASSWORD, "again": PASSWORD}).status == 200
    assert client.get(f"/console/accounts/{OTHER}/users/nobody/password").status == 404


def test_no_password_is_stored_as_it_is(guarded):
    ((made,),) = guarded.query("SELECT hash FROM console_passwords")
    assert made.startswith("$argon2id$")
    client = signed_in(guarded)
    ((name,),) = guarded.query("SELECT session_hash FROM console_sessions")
    assert client.cookies["sendback_console"] not in name
