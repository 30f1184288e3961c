"""Verifying an address as its owner does: reading the mail, following its link, confirming."""

import re
from datetime import timedelta
from email import message_from_bytes, policy

import pytest

from tests.partners.webhook import Webhook

ADDRESS = "ann@other.example"


@pytest.fixture
def proving(running):
    return running(verification="proved", dns="off")


def link_in(server, number=-1):
    """The link of the newest mail in the outbox."""
    newest = sorted(server.outbox(), key=lambda sent: sent.created_at)[number]
    mail = message_from_bytes(newest.content, policy=policy.default)
    text = mail.get_body(("plain",)).get_content()
    (found,) = re.findall(r"http://\S+/verify\?t=\S+", text)
    return mail, found


def status(server, address=ADDRESS):
    found = server.ses.get_identity_verification_attributes(Identities=[address])
    return found["VerificationAttributes"][address]["VerificationStatus"]


def test_the_whole_way(proving, page):
    proving.ses.verify_email_identity(EmailAddress=ADDRESS)
    mail, link = link_in(proving)
    assert mail["To"] == ADDRESS
    assert mail["From"] == "no-reply@mx.example.com"
    assert mail["Subject"] == "Email Address Verification Request in region US-EAST-1"
    page.goto(link)
    assert page.locator("h1").inner_text() == "Confirm your address"
    assert page.locator("strong").inner_text() == ADDRESS
    page.reload()
    assert status(proving) == "Pending"  # looking changes nothing
    page.get_by_role("button", name="Confirm this address").click()
    assert page.locator("h1").inner_text() == "Your address is verified"
    assert status(proving) == "Success"
    # Replayed: nothing happens.
    page.goto(link)
    assert page.locator("h1").inner_text() == "This link was used already"


def test_an_expired_link(proving, page, clock):
    proving.ses.verify_email_identity(EmailAddress=ADDRESS)
    _, link = link_in(proving)
    page.goto(link)
    clock.advance(timedelta(hours=24, seconds=1))
    page.get_by_role("button").click()  # it expired while the page was open
    assert page.locator("h1").inner_text() == "This link has expired"
    page.goto(link)
    assert page.locator("h1").inner_text() == "This link has expired"
    assert status(proving) == "Pending"
    # Asked again, a new mail has a link that works.
    proving.ses.verify_email_identity(EmailAddress=ADDRESS)
    page.goto(link_in(proving)[1])
    page.get_by_role("button").click()
    assert status(proving) == "Success"


def test_forged_links(proving, page):
    proving.ses.verify_email_identity(EmailAddress=ADDRESS)
    _, link = link_in(proving)
    payload, signature = link.split("=", 1)[1].split(".")
    forged = [link[:-4] + "AAAA", link.replace(payload, payload[:-8]), link[:80], "/verify"]
    forged.append(link.replace(signature, "%E2%82%AC"))
    for text in forged:
        page.goto(text if text.startswith("http") else proving.endpoint + text)
        assert page.locator("h1").inner_text() == "This is not a link of ours"
    assert status(proving) == "Pending"


def test_an_address_that_is_markup_is_shown_as_text(proving, page):
    address = '"<b>&amp;</b><script>document.title=1</script>"@other.example'
    proving.ses.verify_email_identity(EmailAddress=address)
    page.goto(link_in(proving)[1])
    assert page.locator("strong").inner_text() == address
    assert page.title() == "Confirm your address"
    page.get_by_role("button").click()
    assert page.locator("strong").inner_text() == address


def test_a_custom_mail_leads_to_its_own_pages(running, page, clock):
    server = running(dns="off")  # the template's sender is verified at once
    server.ses.verify_domain_identity(Domain="example.com")
    with Webhook() as site:
        server.ses.create_custom_verification_email_template(
            TemplateName="welcome",
            FromEmailAddress="team@example.com",
            TemplateSubject="Welcome",
            TemplateContent="<p>Hello</p>",
            SuccessRedirectionURL=f"{site.url}/yes",
            FailureRedirectionURL=f"{site.url}/no",
        )
        send = server.ses.send_custom_verification_email
        send(TemplateName="welcome", EmailAddress=ADDRESS)
        _, link = link_in(server)
        page.goto(link)
        page.get_by_role("button").click()
        page.wait_for_url(f"{site.url}/yes")
        page.goto(link)
        page.wait_for_url(f"{site.url}/no")
