"""Signing in, the overview and the list of changes, in a browser."""

import pytest

from sendback.store.events.counters import AddCounts
from tests.browser.look import defects, shoot
from tests.partners.waiting import wait_for

PASSWORD = "correct horse battery"
ACCOUNT = "000000000000"


@pytest.fixture
def guarded(running):
    """A server on which users sign in; root has a password."""
    server = running(development_key="false")
    server.run(server.app.passwords.set(ACCOUNT, "root", PASSWORD))
    return server


def add(server, account, counts):
    """Add to the counters: (minutes ago, kind, detail) and the number of each."""
    now = int(server.app.clock.now().timestamp()) // 60
    rows = {(account, now - ago, kind, detail): n for (ago, kind, detail), n in counts.items()}
    server.run(server.app.store.write(AddCounts(rows)))


def busy(server):
    """An hour of mail."""
    own = {}
    for ago in range(60):
        wave = 40 + ago % 17 * 3
        own[ago, "received", "example.com"] = wave
        own[ago, "received", "shop.example"] = wave // 3
        own[ago, "delivered", "sender.example"] = wave // 4
        own[ago, "delivered", "mail.example"] = wave // 9
        own[ago, "bounced", "api 5.1.1"] = wave // 7
        own[ago, "bounced", "rule 5.7.1"] = ago % 3
        if 20 < ago < 35:
            own[ago, "deferred", "slow.example"] = ago % 6
        if ago % 19 == 0:
            own[ago, "failed", "gone.example"] = 2
    add(server, ACCOUNT, own)
    add(server, "", {(ago, "refused", "5.1.1"): 3 + ago % 11 for ago in range(60)})
    add(server, "", {(ago, "refused", "5.7.1"): 1 for ago in range(0, 60, 7)})


def test_signing_in_by_keyboard_alone(guarded, page):
    page.goto(f"{guarded.endpoint}/console/bounces")
    page.get_by_role("heading", name="Sign in to Sendback").wait_for()
    shoot(page, "login", dark=False)
    assert defects(page) == []
    page.get_by_label("Password", exact=True).focus()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The account, the user or the password is wrong.").wait_for()
    assert defects(page) == []
    page.get_by_label("Password", exact=True).focus()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_text("root in 000000000000").wait_for()
    assert page.url.endswith("/console/bounces")
    page.get_by_role("button", name="Sign out").focus()
    page.keyboard.press("Enter")
    page.get_by_text("You are signed out.").wait_for()
    assert defects(page) == []


def test_scripts_cannot_read_the_session(guarded, page):
    page.goto(f"{guarded.endpoint}/console/login")
    assert page.evaluate("document.cookie") == ""


def test_a_part_of_a_page_leads_to_the_login_when_the_session_has_ended(guarded, page):
    sign_in(guarded, page)
    page.goto(f"{guarded.endpoint}/console/overview")
    guarded.run(guarded.app.passwords.delete(ACCOUNT, "root"))
    page.wait_for_url("**/console/login?*", timeout=15_000)


def test_one_changes_ones_password(guarded, page):
    sign_in(guarded, page)
    page.goto(f"{guarded.endpoint}/console/password")
    assert defects(page) == []
    page.get_by_label("Current password").fill(PASSWORD)
    page.get_by_label("New password", exact=True).fill("another long password")
    page.get_by_label("New password again").fill("something else entirely")
    page.get_by_role("button", name="Change the password").click()
    page.get_by_text("The two are not the same.").wait_for()
    assert defects(page) == []
    page.get_by_label("Current password").fill(PASSWORD)
    page.get_by_label("New password", exact=True).fill("another long password")
    page.get_by_label("New password again").fill("another long password")
    page.get_by_role("button", name="Change the password").click()
    page.get_by_text("Your password is changed.").wait_for()


def test_the_overview(server, page):
    busy(server)
    page.goto(f"{server.endpoint}/console/overview")
    page.get_by_role("img", name="Received and refused").wait_for()
    shoot(page, "overview")
    assert defects(page) == []
    page.get_by_text("Last week").click()
    page.wait_for_url("**period=week")
    assert defects(page) == []


def test_the_overview_reads_itself_again_but_not_while_a_table_is_open(server, page):
    page.goto(f"{server.endpoint}/console/overview")
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    server.send_mail()
    page.wait_for_timeout(7000)
    assert page.locator("dd.big").first.text_content() == "0"
    page.keyboard.press("Enter")
    wait_for(lambda: page.locator("dd.big").first.text_content() == "1")


def test_the_changes(server, page):
    page.goto(f"{server.endpoint}/console/audit")
    page.get_by_role("heading", name="No changes").wait_for()
    assert defects(page) == []
    page.goto(f"{server.endpoint}/console/domains")
    page.get_by_label("Pause another domain").fill("example.net")
    page.get_by_role("button", name="Pause").first.click()
    page.get_by_text("Delivery to example.net is paused.").wait_for()
    page.goto(f"{server.endpoint}/console/audit")
    page.get_by_role("cell", name="Delivery to example.net is paused.").wait_for()
    assert defects(page) == []


def sign_in(server, page):
    page.goto(f"{server.endpoint}/console/login")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_text("root in 000000000000").wait_for()
