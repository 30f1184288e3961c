"""Templates of verification mails in the console."""

import pytest

from tests.console.signing_in import signed_in

WHERE = "/console/verification-templates"
FIELDS = {
    "TemplateName": "welcome",
    "FromEmailAddress": "verify@example.com",
    "TemplateSubject": "Please confirm",
    "TemplateContent": "<p>Hello</p>\r\n<p>there</p>",
    "SuccessRedirectionURL": "https://example.com/yes",
    "FailureRedirectionURL": "https://example.com/no",
}


def test_a_template_is_created_changed_sent_and_deleted(server, console):
    page = console.get(WHERE)
    assert "No templates yet" in page.text
    assert "create-custom-verification-email-template" in page.text
    assert "Template welcome is created" in console.post(WHERE, FIELDS).text
    assert "welcome" in console.get(WHERE).text
    here = f"{WHERE}/welcome"
    shown = console.get(here).form(here)
    assert shown["TemplateContent"] == "<p>Hello</p>\n<p>there</p>"
    changed = console.post(here, {**FIELDS, "do": "save", "TemplateSubject": "Now"})
    assert "Template welcome is changed" in changed.text
    template = server.ses.get_custom_verification_email_template(TemplateName="welcome")
    assert template["TemplateSubject"] == "Now"
    sent = console.post(here, {"do": "send", "EmailAddress": "ann@x.example"})
    assert "A mail by template welcome is queued for ann@x.example" in sent.text
    assert "ann@x.example" in server.ses.list_identities()["Identities"]
    assert "Template welcome is deleted" in console.post(here, {"do": "delete"}).text
    assert console.get(here).status == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("TemplateName", "not a name"),
        ("FromEmailAddress", "a@elsewhere.example"),
        ("SuccessRedirectionURL", "javascript:alert(1)"),
        ("FailureRedirectionURL", "nowhere"),
    ],
)
def test_errors_are_beside_their_fields(server, console, field, value):
    console.get(WHERE)
    page = console.post(WHERE, {**FIELDS, field: value})
    assert page.status == 400
    assert f'href="#f-{field}"' in page.html
    assert page.form(WHERE)[field] == value
    assert (
        server.ses.list_custom_verification_email_templates()["CustomVerificationEmailTemplates"]
        == []
    )


def test_errors_of_a_template(server, console):
    console.get(WHERE)
    console.post(WHERE, FIELDS)
    here = f"{WHERE}/welcome"
    assert "already exists" in console.post(WHERE, FIELDS).text
    wrong = console.post(here, {"do": "send", "EmailAddress": "nobody"})
    assert wrong.status == 400
    assert 'href="#f-EmailAddress"' in wrong.html
    assert console.post(here, {**FIELDS, "do": "save", "TemplateSubject": " "}).status == 400
    assert console.post(here, {"do": "explode"}).status == 400


def test_a_hostile_template_is_text(server, console):
    console.get(WHERE)
    hostile = "</textarea><script>x</script>\u202e"
    page = console.post(WHERE, {**FIELDS, "TemplateContent": hostile, "TemplateSubject": hostile})
    assert "<script>x" not in page.html
    assert "<script>x" not in console.get(WHERE).html


def test_templates_and_records_of_another_account(running):
    server = running(development_key=False)
    own = server.ses_of("000000000000", "root")
    own.verify_domain_identity(Domain="example.com")
    own.create_custom_verification_email_template(**FIELDS)
    assert signed_in(server).get(f"{WHERE}/welcome").status == 200
    other = signed_in(server, "111122223333")
    assert "No templates yet" in other.get(WHERE).text
    for path in (
        f"{WHERE}/welcome",
        "/console/identities/example.com",
        "/console/identities/example.com/records",
        "/console/identities/example.com/policies",
        "/console/accounts/000000000000/sending",
    ):
        assert other.get(path).status == 404
    sent = other.post(f"{WHERE}/welcome", {"do": "send", "EmailAddress": "a@b.example"})
    assert sent.status == 404
    assert server.outbox() == []
