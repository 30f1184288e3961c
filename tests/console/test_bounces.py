"""Bouncing a message, and the list of bounces."""

from tests.partners.console import ConsoleClient

LIST = "BouncedRecipientInfoList.member"


def bounce_form(console, message_id):
    path = f"/console/mail/{message_id}/bounce"
    return path, console.get(path)


def test_a_message_is_bounced_as_the_form_is_filled(server, console):
    message_id = server.send_mail()
    path, page = bounce_form(console, message_id)
    assert "no findings" in page.text
    assert "aws ses send-bounce" in page.text
    fields = page.form(path)
    assert fields["BounceSender"] == "mailer-daemon@example.com"
    assert fields[f"{LIST}.1.Recipient"] == "bob@example.com"
    sent = console.post(path, {**fields, "do": "send"})
    assert sent.path.startswith("/console/bounces/0100")
    assert "is queued" in sent.text
    (bounce,) = server.outbox()
    assert bounce.original_message_id == message_id
    assert "5.6.1" in sent.text


def test_the_sender_is_an_address_that_is_verified(running):
    server = running(send_bounce_rate="0")
    server.verify("bob@example.com")
    browser = ConsoleClient(server.endpoint)
    path, page = bounce_form(browser, server.send_mail())
    assert page.form(path)["BounceSender"] == "bob@example.com"
    assert "is queued" in browser.post(path, {**page.form(path), "do": "send"}).text


def test_a_preview_is_of_a_message_that_there_is(server, console):
    message_id = server.send_mail(content=b"Subject: private\r\n\r\n")
    _, page = bounce_form(console, message_id)
    fields = page.form(f"/console/mail/{message_id}/bounce")
    del fields["csrf"]
    other = console.post("/console/mail/0100nothing/bounce/preview", fields)
    assert (other.status, "private" in other.html) == (404, False)


def test_the_report_is_shown_without_bidirectional_characters(server, console):
    message_id = server.send_mail(content="Subject: a\u202eb\r\n\r\n".encode())
    path, page = bounce_form(console, message_id)
    assert "\u202e" not in page.html
    fields = page.form(path) | {"Explanation": "c\u202ed", "do": "preview"}
    preview = console.post(f"{path}/preview", fields)
    assert "For people" in preview.text
    assert "\u202e" not in preview.html


def test_a_preview_changes_nothing(server, console):
    path, page = bounce_form(console, server.send_mail())
    fields = page.form(path) | {f"{LIST}.1.BounceType": "ExceededQuota", "do": "preview"}
    assert "5.2.2" in console.post(path, fields).text
    assert "552 5.2.2 Mailbox full" in console.post(f"{path}/preview", fields).text
    assert server.outbox() == []


def test_errors_are_beside_their_fields(server, console):
    path, page = bounce_form(console, server.send_mail())
    fields = page.form(path) | {"do": "send"}
    cases = [
        ({"BounceSender": "nobody"}, "BounceSender"),
        ({f"{LIST}.1.Recipient": "@"}, f"{LIST}.1.Recipient"),
        ({f"{LIST}.1.BounceType": "", f"{LIST}.1.RecipientDsnFields.Action": "failed",
          f"{LIST}.1.RecipientDsnFields.Status": "9"}, f"{LIST}.1.RecipientDsnFields.Status"),
        ({"MessageDsn.ReportingMta": "nonsense"}, "MessageDsn.ReportingMta"),
    ]  # fmt: skip
    for change, name in cases:
        wrong = console.post(path, {**fields, **change})
        assert wrong.status == 400, change
        identity = f'id="f-{name.replace(".", "-")}"'
        tag = next(part for part in wrong.html.split("<") if identity in part)
        assert 'aria-invalid="true"' in tag, (change, wrong.text)
    assert server.outbox() == []


def test_the_errors_of_the_api_that_name_no_field(server, console):
    path, page = bounce_form(console, server.send_mail())
    fields = page.form(path) | {"do": "send", "BounceSender": "x@other.example"}
    assert "not verified" in console.post(path, fields).text
    assert server.outbox() == []


def test_recipients_and_fields_are_added_and_left_out_without_scripts(server, console):
    path, page = bounce_form(console, server.send_mail())
    more = console.post(path, {**page.form(path), "do": f"add {LIST}.2"})
    assert f"{LIST}.2.Recipient" in more.form(path)
    member = "MessageDsn.ExtensionFields.member.1"
    wide = console.post(path, {**more.form(path), "do": f"add {member}"})
    assert f"{member}.Name" in wide.form(path)
    less = console.post(path, {**wide.form(path), "do": f"drop {LIST}.2"})
    assert f"{LIST}.2.Recipient" not in less.form(path)
    fields = less.form(path) | {f"{member}.Name": "X-Reason", f"{member}.Value": "test"}
    sent = console.post(path, {**fields, "do": "send"})
    assert "is queued" in sent.text
    (bounce,) = server.outbox()
    assert b"X-Reason: test" in bounce.content


def test_the_list_is_filtered_and_continued(server, console):
    for number in range(3):
        message_id = server.send_mail(sender=f"ann{number}@sender.example")
        path, page = bounce_form(console, message_id)
        console.post(path, {**page.form(path), "do": "send"})
    whole = console.get("/console/bounces")
    assert whole.text.count("@sender.example") >= 3
    some = console.get("/console/bounces?recipient=ann1*")
    assert "ann1@sender.example" in some.text
    assert "ann2@sender.example" not in some.text
    assert "No bounce matches" in console.get("/console/bounces?state=failed").text
    assert console.get("/console/bounces?state=nonsense").status == 400
    assert console.get("/console/bounces?domain=[1.2.3.4]").status == 400
    assert console.get("/console/bounces?created_before=x").status == 400


def test_bounces_are_held_released_and_cancelled(running, console):
    server = running(outbound="smtp://127.0.0.1:1", send_bounce_rate="0")
    server.ses.verify_domain_identity(Domain="example.com")
    browser = ConsoleClient(server.endpoint)
    path, page = bounce_form(browser, server.send_mail())
    shown = browser.post(path, {**page.form(path), "do": "send"})
    bounce_path = shown.path.partition("?")[0]
    assert "Delivery attempts" in shown.text
    held = browser.post(bounce_path, {"do": "hold"})
    assert "was held" in held.text
    assert browser.post(bounce_path, {"do": "hold"}).status == 409
    everything = browser.post("/console/bounces", {"which": "all", "do": "release"})
    assert everything.status == 400
    all_held = {"which": "all", "state": "held", "do": "release"}
    assert "One bounce was released" in browser.post("/console/bounces", all_held).text
    bounce_id = bounce_path.rpartition("/")[2]
    cancelled = browser.post(
        "/console/bounces", {"which": "checked", "id": bounce_id, "do": "cancel"}
    )
    assert "One bounce was cancelled" in cancelled.text
    nothing = browser.post("/console/bounces", {"which": "checked", "do": "cancel"})
    assert "nothing was changed" in nothing.text
    assert browser.post(bounce_path, {"do": "explode"}).status == 400
    raw = browser.get(f"{bounce_path}/raw")
    assert raw.headers["content-disposition"].startswith("attachment")


def test_domains_are_paused_and_resumed(server, console):
    console.get("/console/domains")
    paused = console.post("/console/domains", {"domain": "sender.example", "do": "pause"})
    assert "Delivery to sender.example is paused" in paused.text
    assert (
        "goes on"
        in console.post("/console/domains", {"domain": "sender.example", "do": "resume"}).text
    )
    assert console.post("/console/domains", {"domain": "no domain", "do": "pause"}).status == 400


def test_a_form_without_its_token(server, console):
    path, page = bounce_form(console, server.send_mail())
    refused = console.post(path, {**page.form(path), "do": "send", "csrf": "0" * 64})
    assert refused.status == 403
    console.cookies.clear()
    assert console.post(path, {**page.form(path), "do": "send"}).status == 403
    assert server.outbox() == []


def test_another_site_cannot_bounce(server, console):
    path, page = bounce_form(console, server.send_mail())
    fields = {**page.form(path), "do": "send"}
    assert console.post(path, fields, Sec_Fetch_Site="cross-site").status == 403
    assert console.post(path, fields, Origin="http://evil.example").status == 403
    assert server.outbox() == []
