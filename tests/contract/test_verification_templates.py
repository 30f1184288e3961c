"""Custom verification mails, by boto3."""

from email import message_from_bytes, policy

import pytest

from tests.contract.errors import error

TEMPLATE = {
    "TemplateName": "welcome",
    "FromEmailAddress": "Team <team@example.com>",
    "TemplateSubject": "Bitte bestätigen",
    "TemplateContent": "<h1>Grüße</h1>",
    "SuccessRedirectionURL": "https://example.com/yes",
    "FailureRedirectionURL": "https://example.com/no",
}


@pytest.fixture
def ses(server):
    client = server.ses_client(parameter_validation=False)
    client.create_custom_verification_email_template(**TEMPLATE)
    return client


def template(ses, name="welcome"):
    found = ses.get_custom_verification_email_template(TemplateName=name)
    return {key: found[key] for key in TEMPLATE}


def test_making_reading_changing_and_deleting(ses):
    assert template(ses) == TEMPLATE
    ses.update_custom_verification_email_template(
        TemplateName="welcome", TemplateSubject="Please confirm"
    )
    assert template(ses) == {**TEMPLATE, "TemplateSubject": "Please confirm"}
    ses.delete_custom_verification_email_template(TemplateName="welcome")
    expected = (
        "CustomVerificationEmailTemplateDoesNotExist",
        "Custom verification email template <welcome> does not exist",
    )
    for call in (
        ses.get_custom_verification_email_template,
        ses.update_custom_verification_email_template,
        ses.delete_custom_verification_email_template,
    ):
        assert error(call, TemplateName="welcome") == expected
    call = ses.send_custom_verification_email
    assert error(call, TemplateName="welcome", EmailAddress="ann@other.example") == (
        "CustomVerificationEmailTemplateDoesNotExist",
        "Template <welcome> does not exist",
    )


def test_lists_come_in_pages(ses):
    for number in range(4):
        ses.create_custom_verification_email_template(**{**TEMPLATE, "TemplateName": f"t{number}"})
    pages = list(
        ses.get_paginator("list_custom_verification_email_templates").paginate(
            PaginationConfig={"PageSize": 2}
        )
    )
    names = [[t["TemplateName"] for t in p["CustomVerificationEmailTemplates"]] for p in pages]
    assert names == [["t0", "t1"], ["t2", "t3"], ["welcome"]]
    assert "TemplateContent" not in pages[0]["CustomVerificationEmailTemplates"][0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"FromEmailAddress": "team@other.example"},
            (
                "FromEmailAddressNotVerified",
                "The from email address <team@other.example> is not verified",
            ),
        ),
        (
            {"FromEmailAddress": "team@example.com\r\nBcc: x@example.com"},
            (
                "FromEmailAddressNotVerified",
                "The from email address <team@example.com\r\nBcc: x@example.com> is not verified",
            ),
        ),
        (
            {"SuccessRedirectionURL": "javascript:alert(1)"},
            ("InvalidParameterValue", "The success redirection URL is invalid"),
        ),
        (
            {"FailureRedirectionURL": "https://"},
            ("InvalidParameterValue", "The failure redirection URL is invalid"),
        ),
        (
            {"TemplateSubject": "x\r\nBcc: eve@example.com"},
            (
                "CustomVerificationEmailInvalidContent",
                "The subject must be one line without control characters",
            ),
        ),
        ({"TemplateContent": " "}, ("InvalidParameterValue", "TemplateContent is required.")),
        ({"TemplateName": "a b"}, ("InvalidParameterValue", "Invalid template name <a b>")),
        (
            {"TemplateName": "welcome"},
            (
                "CustomVerificationEmailTemplateAlreadyExists",
                "Custom verification email template <welcome> already exists",
            ),
        ),
    ],
)
def test_templates_that_are_refused(ses, change, expected):
    given = {**TEMPLATE, "TemplateName": "new", **change}
    assert error(ses.create_custom_verification_email_template, **given) == expected


def test_the_51st(ses):
    for number in range(49):
        ses.create_custom_verification_email_template(**{**TEMPLATE, "TemplateName": f"t{number}"})
    call = ses.create_custom_verification_email_template
    expected = ("LimitExceeded", "An account may have 50 templates.")
    assert error(call, **{**TEMPLATE, "TemplateName": "more"}) == expected


def test_sending(ses, server):
    found = ses.send_custom_verification_email(
        TemplateName="welcome", EmailAddress="ann@other.example"
    )
    assert "ann@other.example" in ses.list_identities()["Identities"]
    (sent,) = server.outbox()
    assert sent.message_id == found["MessageId"]
    assert str(sent.recipient) == "ann@other.example"
    assert sent.content.isascii()
    mail = message_from_bytes(sent.content, policy=policy.default)
    assert (mail["From"], mail["To"]) == ("Team <team@example.com>", "ann@other.example")
    assert (mail["Subject"], mail["Auto-Submitted"]) == ("Bitte bestätigen", "auto-generated")
    html = mail.get_body(("html",)).get_content().replace("\r\n", "\n")
    assert html.startswith("<h1>Grüße</h1>\n<p><a href=")
    assert f"{server.endpoint}/verify?t=" in html
    assert f"{server.endpoint}/verify?t=" in mail.get_body(("plain",)).get_content()


def test_sending_that_is_refused(ses):
    call = ses.send_custom_verification_email
    code, _ = error(call, TemplateName="welcome", EmailAddress="nobody")
    assert code == "InvalidParameterValue"
    assert error(
        call, TemplateName="welcome", EmailAddress="a@b.example", ConfigurationSetName="set"
    ) == ("ConfigurationSetDoesNotExist", "Configuration set <set> does not exist.")
    ses.delete_identity(Identity="example.com")
    assert error(call, TemplateName="welcome", EmailAddress="a@b.example") == (
        "FromEmailAddressNotVerified",
        "Email address is not verified. The following identities failed the check in region "
        "US-EAST-1: Team <team@example.com>",
    )


def test_another_accounts_templates_do_not_exist(ses, server):
    eve = server.ses_of("111111111111", "eve")
    found = eve.list_custom_verification_email_templates()
    assert found["CustomVerificationEmailTemplates"] == []
    code, _ = error(eve.get_custom_verification_email_template, TemplateName="welcome")
    assert code == "CustomVerificationEmailTemplateDoesNotExist"
