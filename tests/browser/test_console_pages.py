"""Every page of the console in a browser: accessible, by mouse and by keyboard."""

import pytest

from tests.browser.look import defects, shoot
from tests.partners.waiting import wait_for

PAGES = {
    "rules": "/rules",
    "rule-set": "/rules/sets/main",
    "rule": "/rules/sets/main/rule?rule=check",
    "try": "/rules/try",
    "filters": "/rules/filters",
    "targets": "/rules/targets",
    "export": "/rules/export",
    "identities": "/identities",
    "identity": "/identities/example.com",
    "policies": "/identities/example.com/policies",
    "accounts": "/accounts",
    "account": "/accounts/000000000000",
    "faults": "/faults",
    "settings": "/settings",
    "doctor": "/doctor",
    "bounces": "/bounces",
    "domains": "/domains",
}
SHOWN = {"rule-set", "rule", "try", "identity", "bounces", "faults"}


@pytest.fixture
def filled(server, tmp_path):
    """A server with rules, mail and a bounce."""
    bucket = {"S3Action": {"BucketName": "mail"}}
    server.apply(
        {
            "buckets": {"mail": f"directory:{tmp_path}"},
            "active_rule_set": "main",
            "rule_sets": {
                "main": {
                    "rules": [
                        {"Name": "check", "Recipients": ["bob@example.com"], "Actions": [bucket]},
                        {"Name": "rest", "Actions": [{"StopAction": {"Scope": "RuleSet"}}]},
                    ]
                }
            },
        }
    )
    message_id = server.send_mail(content=b"Subject: Invoice 2207\r\n\r\nPlease pay.\r\n")
    server.steps(message_id)
    recipients = [{"Recipient": "bob@example.com", "BounceType": "ContentRejected"}]
    sender = "mailer-daemon@example.com"
    server.ses.send_bounce(
        OriginalMessageId=message_id, BounceSender=sender, BouncedRecipientInfoList=recipients
    )
    server.ses.verify_domain_dkim(Domain="example.com")
    return server, message_id


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_defects(filled, page, name):
    server, _ = filled
    page.goto(f"{server.endpoint}/console{PAGES[name]}")
    page.locator("h1").wait_for()
    if name in SHOWN:
        shoot(page, name, dark=name == "rule-set", narrow=name == "rule-set")
    assert defects(page) == []


@pytest.mark.parametrize("tab", ["text", "html", "headers", "parts", "source"])
def test_a_message_has_no_defects(filled, page, tab):
    server, message_id = filled
    page.goto(f"{server.endpoint}/console/mail/{message_id}?tab={tab}")
    page.get_by_text("Rule check").wait_for()
    assert defects(page) == []


def test_a_message_that_was_bounced(filled, page):
    server, message_id = filled
    page.goto(f"{server.endpoint}/console/mail/{message_id}")
    wait_for(lambda: server.outbox()[0].attempts)
    page.reload()
    page.get_by_text("nothing is sent").wait_for()
    shoot(page, "mail")
    page.get_by_text("Bounce queued for").click()
    page.get_by_role("heading", name="For programs").wait_for()
    shoot(page, "bounce", dark=False, narrow=False)
    assert defects(page) == []


def test_mail_is_bounced_in_three_clicks(server, page):
    message_id = server.send_mail(content=b"Subject: Invoice 2207\r\n\r\nPlease pay.\r\n")
    page.goto(server.endpoint)
    shoot(page, "first-1", dark=False, narrow=False)
    page.locator(f"#row-{message_id} a").click()
    page.get_by_text("Received for one recipient").wait_for()
    shoot(page, "first-2", dark=False, narrow=False)
    page.get_by_role("link", name="Bounce…").click()
    page.get_by_role("button", name="Send bounce").wait_for()
    shoot(page, "first-3", dark=False, narrow=False)
    assert defects(page) == []
    page.get_by_role("button", name="Send bounce").click()
    page.get_by_text("is queued").wait_for()
    page.reload()
    shoot(page, "first-4", dark=False, narrow=False)
    assert len(server.outbox()) == 1


def test_the_preview_follows_the_form(server, page):
    message_id = server.send_mail()
    page.goto(f"{server.endpoint}/console/mail/{message_id}/bounce")
    page.get_by_label("BounceType").select_option("ExceededQuota")
    page.locator("#preview").get_by_text("5.2.2", exact=True).wait_for()
    page.get_by_label("BounceSender", exact=True).fill("nobody")
    page.get_by_text("cannot be sent").wait_for()
    page.get_by_role("button", name="Send bounce").click()
    page.locator("[aria-invalid=true]").wait_for()
    assert defects(page) == []
    assert server.outbox() == []


def test_new_mail_slides_in_and_its_state_follows(server, page):
    page.goto(f"{server.endpoint}/console/")
    page.get_by_text("live", exact=True).wait_for()
    message_id = server.send_mail(content=b"Subject: it is new\r\n\r\n")
    page.locator(f"#row-{message_id}").get_by_text("it is new").wait_for(timeout=2000)
    recipients = [{"Recipient": "bob@example.com", "BounceType": "ContentRejected"}]
    server.ses.send_bounce(
        OriginalMessageId=message_id,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=recipients,
    )
    page.locator(f"#row-{message_id}").get_by_text("bounced").wait_for(timeout=2000)


def test_the_open_message_follows_what_happens(server, page):
    message_id = server.send_mail()
    page.goto(f"{server.endpoint}/console/mail/{message_id}")
    page.get_by_text("live", exact=True).wait_for()
    recipients = [{"Recipient": "bob@example.com", "BounceType": "ContentRejected"}]
    server.ses.send_bounce(
        OriginalMessageId=message_id,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=recipients,
    )
    page.get_by_text("Bounce queued for").wait_for(timeout=3000)


def test_older_mail_comes_when_it_is_scrolled_to(server, page):
    for number in range(60):
        server.send_mail(content=f"Subject: mail {number}\r\n\r\n".encode())
    page.goto(f"{server.endpoint}/console/mail")
    assert page.locator(".row").count() >= 50
    page.locator("#more").scroll_into_view_if_needed()
    page.locator(".row").nth(59).wait_for()


def test_by_keyboard_alone(server, page):
    ids = sorted((server.send_mail() for _ in range(3)), reverse=True)
    page.goto(f"{server.endpoint}/console/mail")
    page.keyboard.press("j")
    page.locator(f'[data-shows="{ids[0]}"]').wait_for()
    page.keyboard.press("j")
    page.locator(f'[data-shows="{ids[1]}"]').wait_for()
    page.keyboard.press("k")
    page.locator(f'[data-shows="{ids[0]}"]').wait_for()
    page.keyboard.press("b")
    page.get_by_role("button", name="Send bounce").focus()
    page.keyboard.press("Enter")
    page.get_by_text("is queued").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("state:bounced")
    page.keyboard.press("Enter")
    page.locator(f"#row-{ids[0]}").wait_for()
    assert page.locator(".row").count() == 1
    page.keyboard.press("Escape")
    page.locator("body").press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.reload()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"


def test_rules_are_dragged(filled, page):
    server, _ = filled
    page.goto(f"{server.endpoint}/console/rules/sets/main")
    page.locator("[data-order=rest]").drag_to(
        page.locator("[data-order=check]"), target_position={"x": 20, "y": 5}
    )
    page.get_by_text("have another order").wait_for()
    rules = server.ses.describe_receipt_rule_set(RuleSetName="main")["Rules"]
    assert [rule["Name"] for rule in rules] == ["rest", "check"]


def test_without_scripts(server, browser):
    message_id = server.send_mail()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{server.endpoint}/console/mail")
    page.locator(f"#row-{message_id} a").click()
    page.get_by_role("link", name="Bounce…").click()
    page.get_by_role("button", name="Send bounce").click()
    page.get_by_text("is queued").wait_for()
    context.close()
    assert len(server.outbox()) == 1
