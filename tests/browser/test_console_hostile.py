"""Mails that try to harm who reads them: shown as text, they run nothing and send nothing."""

import smtplib

import pytest

from tests.partners.clients import send_mail
from tests.partners.hostile_mails import MAILS

GROUP = 15
VIEWS = ("text", "html", "headers", "parts", "source")


@pytest.fixture
def watched(server, page):
    """A page that notes dialogs and requests to others."""
    noted: list[str] = []
    page.on("dialog", lambda dialog: (noted.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((server.endpoint, "data:", "about:"))
            else noted.append(f"request {request.url}")
        ),
    )
    page.on("download", lambda download: noted.append(f"download {download.url}"))
    return page, noted


@pytest.mark.parametrize("start", range(0, len(MAILS), GROUP))
def test_hostile_mails_do_nothing(server, watched, start):
    page, noted = watched
    for name in list(MAILS)[start : start + GROUP]:
        message_id = send_mail(server.smtp_port, content=MAILS[name])
        look_at(server, page, message_id)
        assert noted == [], name


def look_at(server, page, message_id):
    """Look at each view of a message."""
    for view in VIEWS:
        page.goto(f"{server.endpoint}/console/mail/{message_id}?tab={view}")
        page.locator("h1").wait_for()
        assert page.title() != "hacked"
        if view == "html" and page.locator("iframe").count():
            frame = page.locator("iframe").element_handle().content_frame()
            frame.wait_for_load_state()
            assert frame.evaluate("() => document.scripts.length") == 0
        assert page.locator("main script").count() == 0


def test_a_mail_with_a_line_of_20_mb(server, watched):
    page, noted = watched
    with smtplib.SMTP("127.0.0.1", server.smtp_port) as smtp:
        content = b"Subject: long\r\n\r\n" + b"x" * 20_000_000
        smtp.sendmail("ann@sender.example", ["bob@example.com"], content)
    page.goto(f"{server.endpoint}/console/mail")
    page.locator(".row").first.click()
    page.get_by_text("Only the first 8 MB were read").wait_for()
    for view in VIEWS:
        page.goto(f"{page.url.partition('?')[0]}?tab={view}")
        page.locator("h1").wait_for()
    assert noted == []


def test_the_list_with_all_of_them(server, watched):
    page, noted = watched
    for content in MAILS.values():
        send_mail(server.smtp_port, content=content)
    page.goto(f"{server.endpoint}/console/mail")
    page.locator(".row").nth(40).wait_for()
    assert page.title() == "Mail · Sendback"
    assert noted == []
