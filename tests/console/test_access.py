"""Who may use the console, from where."""

import re
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest

from sendback.config.settings import SettingError
from sendback.console.call import Page
from sendback.console.routes import PAGES
from sendback.store.engine.errors import StoreUnavailableError
from tests.console.signing_in import signed_in
from tests.partners.console import ConsoleClient, ShownPage
from tests.partners.server import Server


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


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]:4579"])
def test_names_of_the_server_are_accepted(console, host):
    assert console.raw("GET", "/console/mail", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["mx.example.com", "MX.example.com:4579", "mail.example.net", "internal"]
)
def test_a_name_by_which_others_may_come_needs_a_login(running, host):
    """With the development key too: by this name there is a proxy in front of the server."""
    server = running(
        hostname="mx.example.com",
        public_url="https://mail.example.net",
        console_hosts="internal, other.example",
    )
    page = ConsoleClient(server.endpoint).raw("GET", "/console/mail", headers={"Host": host})
    assert page.status == 303
    assert page.headers["location"].startswith("/console/login")


@pytest.mark.parametrize("value", ["a b", "host:80", "https://x", "*"])
def test_hosts_are_names(running, value):
    with pytest.raises(SettingError, match="host names without ports"):
        running(console_hosts=value)


# --- requests of other sites ---------------------------------------------------------------------

FORM = "application/x-www-form-urlencoded"


def sent(console: ConsoleClient, body: str, **fields: str) -> ShownPage:
    """A POST that would change something, with these header fields."""
    headers = {"Content-Type": FORM, **{k.replace("_", "-"): v for k, v in fields.items()}}
    return console.raw("POST", "/console/domains", body, headers)


def change(console: ConsoleClient) -> str:
    """The body of a change that is permitted."""
    console.get("/console/domains")
    return f"csrf={console.token}&domain=example.net&do=pause"


@pytest.mark.parametrize(
    "fields",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "nonsense"},
        {"Origin": "http://[", "Sec_Fetch_Site": "same-origin"},
    ],
)
def test_a_form_of_another_site_changes_nothing(console, fields):
    page = sent(console, change(console), **fields)
    assert page.status == 403
    assert "another site" in page.text
    assert "example.net" not in console.get("/console/domains").text


def test_a_form_of_the_console_changes_something(server, console):
    origin = server.endpoint
    page = sent(console, change(console), Origin=origin, Sec_Fetch_Site="same-origin")
    assert page.status == 303


@pytest.mark.parametrize("token", ["", "0" * 64, "x", "\N{LATIN SMALL LETTER E WITH ACUTE}" * 64])
def test_a_form_without_its_token_changes_nothing(console, token):
    body = change(console).replace(console.token, quote(token))
    page = sent(console, body, Sec_Fetch_Site="same-origin")
    assert page.status == 403
    assert "not valid any more" in page.text


def test_the_token_of_another_browser_changes_nothing(server, console):
    body = change(ConsoleClient(server.endpoint))
    console.get("/console/mail")
    assert sent(console, body).status == 403


def test_a_token_without_its_cookie_changes_nothing(console):
    body = change(console)
    console.cookies.clear()
    assert sent(console, body).status == 403


def test_a_form_without_a_type_changes_nothing(console):
    body = change(console)
    assert sent(console, body, **{"Content-Type": "text/plain"}).status == 415


@pytest.mark.parametrize("mode", ["cors", "no-cors", "websocket"])
def test_another_site_cannot_read_a_page(console, mode):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}
    assert console.raw("GET", "/console/mail", headers=headers).status == 403


def test_another_site_may_link_to_a_page_and_cannot_put_words_into_it(console):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    page = console.raw("GET", "/console/mail?note=Call+us+now", headers=headers)
    assert page.status == 200
    assert "Call us now" not in page.text


# --- every page ----------------------------------------------------------------------------------

POSTS = [page for page in PAGES if page.method == "POST"]


def path_of(page: Page) -> str:
    """The page's path, with a segment for each variable."""
    return "/console" + re.sub(r"\{(\w+)\}", lambda found: EXAMPLES.get(found[1], "1"), page.path)


EXAMPLES = {"account": "111122223333", "user": "ann"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Server]:
    """A server on which users sign in; its data is what the tests of a module leave."""
    folder = tmp_path_factory.mktemp("guarded")
    with Server(data_dir=folder, development_key="false") as server:
        yield server


def name_of(page: Page) -> str:
    return f"{page.method} {page.path}"


@pytest.mark.parametrize("page", [page for page in PAGES if not page.for_all], ids=name_of)
def test_a_page_needs_a_login(guarded, page):
    stranger = ConsoleClient(guarded.endpoint)
    found = stranger.raw(page.method, path_of(page), headers={"Content-Type": FORM})
    assert found.status == 303
    assert found.headers["location"].startswith("/console/login?")


@pytest.mark.parametrize("page", POSTS, ids=name_of)
def test_a_change_needs_a_token(guarded, page):
    client = signed_in(guarded)
    found = client.raw("POST", path_of(page), "csrf=", {"Content-Type": FORM})
    assert found.status == 403
    assert "not valid any more" in found.text


@pytest.mark.parametrize("page", [page for page in PAGES if page.for_operator], ids=name_of)
@pytest.mark.parametrize("user", ["root", "ann"])
def test_a_page_of_the_operator_is_not_for_others(guarded, page, user):
    client = signed_in(guarded, "444455556666", user)
    client.get("/console/password")
    body = urlencode({"csrf": client.token})
    found = client.raw(page.method, path_of(page), body, {"Content-Type": FORM})
    assert found.status == 403
    assert "Only the operator" in found.text


@pytest.mark.parametrize(
    "page", [p for p in PAGES if "{" in p.path and p.method == "GET"], ids=name_of
)
def test_what_another_account_has_is_not_found(guarded, page):
    client = signed_in(guarded, "444455556666", "root")
    found = client.get(path_of(page))
    assert found.status in {400, 403, 404}, found.text


def test_a_store_that_is_unavailable_has_a_page(running, monkeypatch):
    server = running()
    console = ConsoleClient(server.endpoint)

    async def fail(_: object) -> None:
        raise StoreUnavailableError("the disk is gone")

    console.get("/console/mail")
    monkeypatch.setattr(server.app.store, "read", fail)
    monkeypatch.setattr(server.app.store, "write", fail)
    page = console.get("/console/domains")
    assert page.status == 503
    assert page.headers["retry-after"] == "1"
    assert "The store is unavailable" in page.text


def test_a_store_that_is_unavailable_signs_nobody_out(running, monkeypatch):
    server = running(development_key="false")
    client = signed_in(server)
    with monkeypatch.context() as patched:

        async def fail(_: object) -> None:
            raise StoreUnavailableError("the disk is gone")

        patched.setattr(server.app.store, "read", fail)
        assert client.get("/console/mail").status == 503
    assert client.get("/console/mail").status == 200


def test_the_console_can_be_off(running):
    server = running(console="false")
    client = ConsoleClient(server.endpoint)
    assert client.raw("GET", "/console/mail").status == 404
    assert client.raw("GET", "/", headers={"Accept": "text/html"}).status == 403
    assert "sendback.console.routes" not in vars(server.app)


def test_tls_in_front_of_the_server(running):
    server = running(public_url="https://mail.example.net")
    page = ConsoleClient(server.endpoint).raw(
        "GET", "/console/login", headers={"Host": "mail.example.net"}
    )
    assert page.headers["strict-transport-security"] == "max-age=31536000"
    assert "; Secure" in page.headers["set-cookie"]
    local = ConsoleClient(server.endpoint).raw("GET", "/console/mail")
    assert "strict-transport-security" not in local.headers
    assert "Secure" not in local.headers["set-cookie"]


def test_nothing_of_the_console_is_imported_before_its_first_request():
    code = (
        "import sys, sendback.serving, sendback.app as app\n"
        "from sendback.config.settings import Settings\n"
        "from sendback.testing import Sendback\n"
        "with Sendback() as server:\n"
        "    server.ses.list_identities()\n"
        "    found = {'jinja2', 'argon2', 'sendback.console'} & sys.modules.keys()\n"
        "    assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


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
