"""Received mail in the console: lists, searches, one message and its content."""

import base64
from email.message import EmailMessage

import pytest

from tests.partners.console import ConsoleClient
from tests.partners.waiting import wait_for


def shown(console, query=""):
    return console.get(f"/console/mail?q={query}")


@pytest.fixture
def mails(server):
    """Three mails by subject."""
    return {
        subject: server.send_mail(
            content=f"Subject: {subject}\r\nX-Tag: {tag}\r\n\r\nbody\r\n".encode(), sender=sender
        )
        for subject, sender, tag in (
            ("Invoice one", "ann@sender.example", "crimson"),
            (
                "=?utf-8?b?" + base64.b64encode("Grüße".encode()).decode() + "?=",
                "eve@x.example",
                "b",
            ),
            ("Lunch", "ann@sender.example", "green"),
        )
    }


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 3),
        ("from:ann@sender.example", 2),
        ("from:eve", 1),
        ("to:bob", 3),
        ("to:nobody", 0),
        ("subject:invoice", 1),
        ("subject:%22Invoice+one%22", 1),
        ("subject:gr%C3%BC", 1),
        ("header:crimson", 1),
        ("Lunch", 1),
        ("from:ann+subject:lunch", 1),
        ("state:stored", 3),
        ("state:bounced", 0),
        ("state:failed", 0),
        ("state:held", 0),
        ("verdict:dmarc-fail", 0),
        ("ip:127.", 3),
        ("after:2026-03-01", 3),
        ("after:2026-03-02", 0),
        ("before:2026-03-01", 0),
        ("re:lunch", 0),
        ("100%25", 0),
    ],
)
def test_search(mails, console, query, count):
    page = shown(console, query)
    assert page.status == 200
    assert page.html.count('id="row-') == count


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("%22open", "a quote is not closed"),
        ("state:lost", "there is no state lost"),
        ("verdict:x", "verdict:dmarc-fail"),
        ("before:yesterday", "no date"),
        ("+".join(f"w{number}" for number in range(11)), "at most 10 terms"),
    ],
)
def test_what_is_no_search_is_explained(server, console, query, problem):
    page = shown(console, query)
    assert "This is no search" in page.text
    assert problem in page.text


def test_a_bounced_message_is_found_by_its_state(server, console):
    message_id = server.send_mail()
    recipients = [{"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}]
    server.ses.send_bounce(
        OriginalMessageId=message_id,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=recipients,
    )
    assert message_id in shown(console, "state:bounced").html
    page = console.get(f"/console/mail/{message_id}")
    assert "Bounce queued for ann@sender.example" in page.text
    wait_for(lambda: "nothing is sent" in console.get(f"/console/mail/{message_id}").text)


def test_the_list_is_continued_behind_the_last_row(server, console):
    ids = [server.send_mail(content=f"Subject: mail {n}\r\n\r\n".encode()) for n in range(53)]
    page = shown(console)
    assert page.html.count('id="row-') == 50
    assert sorted(ids)[52] in page.html
    older = console.get(f"/console/mail?before={sorted(ids)[3]}")
    assert older.html.count('id="row-') == 3


def test_an_empty_server_says_how_to_get_the_first_mail(server, console):
    page = shown(console)
    assert f"swaks --server 127.0.0.1:{server.smtp_port}" in page.text


def test_the_views_of_a_message(server, console):
    mail = EmailMessage()
    mail["Subject"] = "All"
    mail.set_content("The plain text.")
    html = '<p onclick="x()">Hello</p><img src="http://evil.example/a.png"><script>x()</script>'
    mail.add_alternative(html, subtype="html")
    mail.add_attachment(b"octets", maintype="image", subtype="png", filename="../../a<b>.png")
    message_id = server.send_mail(content=mail.as_bytes().replace(b"\n", b"\r\n"))
    path = f"/console/mail/{message_id}"
    assert "The plain text." in console.get(path).text
    page = console.get(f"{path}?tab=html")
    assert "1 references to other servers are blocked" in page.text
    frame = console.get(f"{path}/html")
    assert "Hello" in frame.html
    for bad in ("evil.example", "script", "onclick"):
        assert bad not in frame.html
    assert "sandbox" in frame.headers["content-security-policy"]
    parts = console.get(f"{path}?tab=parts")
    assert "a_b_.png" in parts.text
    number = parts.html.partition("a_b_.png")[2].partition("/parts/")[2].partition('"')[0]
    part = console.get(f"{path}/parts/{number}")
    assert part.html == "octets"
    assert part.headers["content-type"] == "application/octet-stream"
    assert "attachment" in part.headers["content-disposition"]
    assert console.get(f"{path}/parts/99").status == 404
    assert console.get(f"{path}/parts/x").status == 404
    assert "Received" in console.get(f"{path}?tab=headers").text
    assert "Subject: All" in console.get(f"{path}?tab=source").text
    raw = console.get(f"{path}/raw")
    assert "Subject: All" in raw.html
    assert raw.headers["content-disposition"].endswith(".eml")


def test_a_message_is_deleted(server, console):
    message_id = server.send_mail()
    path = f"/console/mail/{message_id}"
    console.get(path)
    assert "was deleted" in console.post(path, {"do": "delete"}).text
    assert console.get(path).status == 404
    assert console.post(path, {"do": "explode"}).status == 400


def test_rules_are_in_the_timeline(server, console):
    server.rules({"Actions": [{"AddHeaderAction": {"HeaderName": "X-A", "HeaderValue": "b"}}]})
    message_id = server.send_mail()
    server.steps(message_id)
    page = console.get(f"/console/mail/{message_id}")
    assert "AddHeader was done" in page.text
    assert console.post(f"/console/mail/{message_id}", {"do": "retry"}).status == 409


def test_the_message_of_another_account(server, console):
    assert console.get("/console/mail/" + "0" * 40).status == 404


def test_two_browsers_see_the_same(server, console):
    message_id = server.send_mail()
    assert message_id in ConsoleClient(server.endpoint).get("/console/mail").html
