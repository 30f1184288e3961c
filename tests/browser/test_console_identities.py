"""Identities in a browser: what DNS answers now, verification mails, temporary credentials."""

import pytest
from playwright.sync_api import expect

from tests.browser.look import defects, shoot
from tests.partners.dns_server import DnsServer


@pytest.fixture
def served(running):
    """A server whose domain has some of its records in the DNS of the test."""
    with DnsServer("") as dns:
        server = running(dns=dns.address)
        ses = server.ses
        ses.verify_domain_identity(Domain="example.com")
        ses.verify_domain_dkim(Domain="example.com")
        ses.set_identity_mail_from_domain(Identity="example.com", MailFromDomain="b.example.com")
        found = ses.get_identity_verification_attributes(Identities=["example.com"])
        token = found["VerificationAttributes"]["example.com"]["VerificationToken"]
        dns.put("_amazonses.example.com", "TXT", f'"{token}"')
        dns.put("b.example.com", "MX", "10 mx.elsewhere.example.")
        yield server


def test_the_answers_of_dns_are_loaded_by_the_page(served, page):
    page.goto(f"{served.endpoint}/console/identities/example.com")
    records = page.locator("#records")
    expect(records.get_by_text("found", exact=True)).to_have_count(1)
    expect(records.get_by_text("different", exact=True)).to_have_count(1)
    expect(records.get_by_text("missing", exact=True)).to_have_count(4)
    shoot(page, "identity", narrow=False, dark=False)
    assert defects(page) == []
    again = page.get_by_role("link", name="Look again")
    again.focus()
    page.keyboard.press("Enter")
    expect(records.get_by_text("found", exact=True)).to_have_count(1)
    assert page.url.endswith("/identities/example.com")
    records.get_by_text("All records as text of a zone").click()
    expect(page.locator("#zone")).to_contain_text("b.example.com. 300 IN MX 10 ")
    assert defects(page) == []


def test_the_answers_without_scripts(served, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{served.endpoint}/console/identities/example.com")
    page.get_by_role("link", name="Look now").click()
    expect(page.get_by_text("found", exact=True)).to_have_count(1)
    page.get_by_role("link", name="Back to the identity").click()
    expect(page.get_by_role("heading", name="DKIM")).to_be_visible()
    context.close()


def test_identities_are_listed_with_their_states(served, page):
    page.goto(f"{served.endpoint}/console/identities")
    expect(page.get_by_role("row", name="example.com")).to_contain_text("b.example.com")
    shoot(page, "identities", narrow=False, dark=False)
    assert defects(page) == []
    page.get_by_label("Begins with").fill("nothing")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No identity begins with nothing.")).to_be_visible()


def test_a_verification_mail_by_keyboard(served, page):
    page.goto(f"{served.endpoint}/console/verification-templates")
    assert defects(page) == []
    page.get_by_label("TemplateName").focus()
    for text in ("welcome", "verify@example.com", "Please confirm"):
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("https://example.com/yes")
    page.keyboard.press("Tab")
    page.keyboard.type("nowhere")
    page.keyboard.press("Enter")
    wrong = page.get_by_label("FailureRedirectionURL")
    expect(wrong).to_have_attribute("aria-invalid", "true")
    assert defects(page) == []
    wrong.fill("https://example.com/no")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="welcome")).to_be_visible()
    assert defects(page) == []


def test_temporary_credentials_and_sending(served, page):
    page.goto(f"{served.endpoint}/console/accounts/000000000000")
    page.get_by_role("button", name="Create them").click()
    expect(page.get_by_text("Session token")).to_be_visible()
    assert "new-" not in page.url
    assert defects(page) == []
    page.get_by_role("link", name="Sending").click()
    expect(page.get_by_role("heading", name="Quota")).to_be_visible()
    assert defects(page) == []
