"""Who may use the console, from where."""

import pytest

from tests.partners.console import ConsoleClient


def test_the_address_of_the_server_leads_a_browser_to_the_console(server, console):
    page = console.get("/", Accept="text/html")
    assert (page.status, page.path) == (200, "/console/mail")


def test_a_call_of_the_api_is_no_browser(server, console):
    page = console.get("/", Accept="*/*")
    assert page.status == 403
    assert "MissingAuthenticationToken" in page.html


def test_pages_have_a_strict_policy(console):
    page = console.get("/console/mail")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:4579", ""]
)
def test_a_rebound_name_is_refused(console, host):
    page = console.raw("GET", "/console/mail", headers={"Host": host})
    assert page.status == 403
    assert "host" in page.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]:4579", "mx.example.com"])
def test_names_of_the_server_are_accepted(console, host):
    assert console.raw("GET", "/console/mail", headers={"Host": host}).status == 200


def test_the_session_cookie_is_only_for_the_console(console):
    cookie = console.raw("GET", "/console/mail").headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=strict", "Path=/console"):
        assert part in cookie


def test_an_unknown_page(console):
    page = console.get("/console/nowhere")
    assert page.status == 404
    assert "nothing at this address" in page.text


def test_a_message_of_nobody(console):
    assert console.get("/console/mail/0" + "a" * 39).status == 404


def test_two_browsers_have_two_sessions(server):
    first, second = ConsoleClient(server.endpoint), ConsoleClient(server.endpoint)
    first.get("/console/mail")
    second.get("/console/mail")
    assert first.cookies != second.cookies
    assert first.token != second.token
