"""Templates of verification mails in the console."""

import pytest

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
