"""Requests that a database cannot hold, that are very long, or that say one thing twice."""

import asyncio
import base64
import json
import time
import urllib.error
import urllib.request
from xml.etree import ElementTree as ET

import pytest

from sendback.dsn import parse
from tests.contract.test_common_errors import LIST, post
from tests.partners.clients import send_mail
from tests.partners.postgresql import write_lock
from tests.partners.raw_http import RawHttp

SENDER = "mailer-daemon@example.com"


def raw(server, request):
    """The answer to a request of any octets."""
    with RawHttp(server.addresses.http.port, request) as client:
        return client.reply()


# --- what no database can hold ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("Action=ListIdentities&Version=2010-12-01&NextToken=%00", "InvalidParameterValue"),
        ("Action=ListIdentities&Version=2010-12-01&Next%00Token=x", "InvalidQueryParameter"),
        ("Action=List%00Identities&Version=2010-12-01", "InvalidParameterValue"),
        ("Action=VerifyDomainIdentity&Version=2010-12-01&Domain=a%00b", "InvalidParameterValue"),
        ("Action=DeleteIdentity&Version=2010-12-01&Identity=%ED%A0%80", "MalformedQueryString"),
        ("Action=DeleteIdentity&Version=2010-12-01&Identity=%C0%80", "MalformedQueryString"),
    ],
)
def test_nul_and_half_surrogate_pairs_in_parameters(server, body, code):
    assert post(server, None, body=body.encode())[0] == code


@pytest.mark.parametrize("position", ["\0", "a\0", "a\n", "\ud800"])
def test_they_cannot_come_in_tokens_either(server, position):
    octets = position.encode("utf-8", "surrogatepass")
    token = base64.urlsafe_b64encode(octets).decode()
    for action in ("ListIdentities", "ListCustomVerificationEmailTemplates"):
        found = post(server, {"Action": action, "Version": "2010-12-01", "NextToken": token})
        assert found[:2] == ("InvalidParameterValue", 400)


@pytest.mark.parametrize(
    "content",
    [json.dumps([0, "\0"]), json.dumps([0, "\ud800"]), "[" * 1400, "[1e999,1]", "[NaN,1]", "{}"],
)
def test_nor_in_those_of_rule_sets(server, content):
    token = base64.urlsafe_b64encode(content.encode()).decode()
    found = post(
        server, {"Action": "ListReceiptRuleSets", "Version": "2010-12-01", "NextToken": token}
    )
    assert found[:2] == ("InvalidParameterValue", 400)
    assert found[2].startswith(f"Invalid NextToken <{token[:100]}")
    assert len(found[2]) < 300


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (b"Authorization", b"AWS4-HMAC-SHA256 Credential=%s", "InvalidClientTokenId"),
        (b"X-Amz-Security-Token", b"%s", "InvalidClientTokenId"),
    ],
)
@pytest.mark.parametrize("octets", [b"\xff", "ü".encode(), b"\xed\xa0\x80", b"a" * 9000])
def test_a_credential_is_printable_ascii(server, name, value, code, octets):
    scope = b"/20260301/us-east-1/ses/aws4_request, SignedHeaders=host, Signature=" + b"0" * 64
    fields = {
        b"Authorization": b"AWS4-HMAC-SHA256 Credential=test" + scope,
        b"X-Amz-Date": b"20260301T120000Z",
        b"Host": b"x",
    }
    fields[name] = value % octets + (scope if name == b"Authorization" else b"")
    head = b"".join(field + b": " + text + b"\r\n" for field, text in fields.items())
    assert raw(server, b"GET / HTTP/1.1\r\n" + head + b"\r\n").code == code


@pytest.mark.parametrize("signature", [b"\xff" * 64, b"0" * 63, b"0" * 15_000, b"A" * 64])
def test_a_signature_is_64_hexadecimal_digits(server, signature):
    head = (
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Amz-Date: 20260301T120000Z\r\n"
        b"Authorization: AWS4-HMAC-SHA256 Credential=test/20260301/us-east-1/ses/aws4_request, "
        b"SignedHeaders=host;x-amz-date, Signature=" + signature + b"\r\n\r\n"
    )
    assert raw(server, head).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    "value", [b"\xff", "ü".encode(), b"\xed\xa0\x80", b"a b", b"a" * 129, b"a\tb"]
)
def test_an_invocation_id_is_printable_ascii(server, value):
    text = value.decode("latin-1")
    found = post(server, LIST, headers={"amz-sdk-invocation-id": text})
    assert found[:2] == ("InvalidParameterValue", 400)
    assert found[2].startswith("amz-sdk-invocation-id: ")


# --- long ones ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {"a." * 1_000_000: "x"},
        {"a" * 2_000_000: "x"},
        {"Identities.member." + "0" * 5000 + "1": "x"},
        {"Identities.member.1" + "0" * 5000: "x"},
        {"Identities.member.1.a.b.c.d.e.f.g.h.i.j": "x"},
    ],
)
def test_names_of_parameters_are_bounded(server, parameters):
    action = {"Action": "GetIdentityDkimAttributes", "Version": "2010-12-01"}
    code, status, text = post(server, {**action, **parameters})
    assert (code, status) == ("InvalidQueryParameter", 400)
    assert len(text) < 400


@pytest.mark.parametrize("index", ["01", "2147483648", "1" * 100, "+1", " 1", "²", "-0"])
def test_an_index_has_one_spelling(server, index):
    action = {"Action": "GetIdentityDkimAttributes", "Version": "2010-12-01"}
    names = {"Identities.member.1": "a.example", f"Identities.member.{index}": "b.example"}
    code, status, text = post(server, {**action, **names})
    assert (code, status) == ("MalformedInput", 400)
    assert text == f"{index} is not a valid index"


LONG = "x" * 1_900_000


@pytest.mark.parametrize(
    ("action", "parameters"),
    [
        (LONG, {}),
        ("VerifyEmailIdentity", {"EmailAddress": LONG}),
        ("VerifyEmailIdentity", {"EmailAddress": "@" * 600_000}),
        ("VerifyDomainIdentity", {"Domain": "ä" * 300_000}),
        ("VerifyDomainIdentity", {"Domain": "a." * 900_000}),
        ("DeleteIdentity", {"Identity": f"arn:aws:ses:us-east-1:000000000000:identity/{LONG}"}),
        ("GetIdentityDkimAttributes", {"Identities.member.1": LONG}),
        ("GetIdentityDkimAttributes", {f"Identities.member.{n}": "x" for n in range(1, 10_001)}),
        ("GetIdentityPolicies", {f"PolicyNames.member.{n}": "x" for n in range(1, 10_001)}),
        ("PutIdentityPolicy", {"PolicyName": "p", "Policy": "[" * 600_000}),
        ("PutIdentityPolicy", {"PolicyName": LONG, "Policy": "{}"}),
        ("PutIdentityPolicy", {"PolicyName": "p", "Policy": '{"a' + "b" * 4000 + '":1}'}),
        ("CreateReceiptRuleSet", {"RuleSetName": "a" * 1_900_000}),
        ("DescribeReceiptRuleSet", {"RuleSetName": "a" * 60}),
        ("ReorderReceiptRuleSet", {f"RuleNames.member.{n}": f"r{n}" for n in range(1, 10_001)}),
        ("ReorderReceiptRuleSet", {"RuleNames.member.1": LONG}),
        ("CreateReceiptFilter", {"Filter.IpFilter.Cidr": ":" * 600_000 + "x"}),
        ("CreateReceiptFilter", {"Filter.IpFilter.Cidr": ":" * 2000 + "x"}),
        ("ListIdentities", {"MaxItems": "9" * 1_900_000}),
        ("ListIdentities", {"NextToken": LONG}),
        ("SetIdentityDkimEnabled", {"Identity": "example.com", "DkimEnabled": LONG}),
        ("SetIdentityMailFromDomain", {"Identity": "example.com", "MailFromDomain": LONG}),
        ("SendBounce", {"OriginalMessageId": LONG, "BounceSender": SENDER}),
        ("SendBounce", {"OriginalMessageId": "x", "BounceSender": LONG}),
        ("SendBounce", {"OriginalMessageId": "x", "BounceSender": SENDER, "Explanation": LONG}),
        ("SendBounce", {"MessageDsn.ArrivalDate": LONG}),
        ("SendBounce", {"MessageDsn.ReportingMta": "dns; " + "a." * 900_000}),
    ],
)  # fmt: skip
def test_no_answer_grows_with_its_request(server, action, parameters):
    if action == "SendBounce":
        first = "BouncedRecipientInfoList.member.1"
        bob = {f"{first}.Recipient": "bob@example.com", f"{first}.BounceType": "DoesNotExist"}
        parameters = {**bob, **parameters}
    if action == "CreateReceiptFilter":
        parameters = {"Filter.Name": "f", "Filter.IpFilter.Policy": "Block", **parameters}
    if action == "ReorderReceiptRuleSet":
        parameters = {"RuleSetName": "none", **parameters}
    if action.endswith("Policy"):
        parameters = {"Identity": "example.com", **parameters}
    code, status, text = post(server, {"Action": action, "Version": "2010-12-01", **parameters})
    assert status in {400, 404}
    assert code != "InternalFailure"
    assert len(text) < 600


def test_an_echo_is_visible_text(server):
    found = post(server, {"Action": "a\x1b[31m\u202eb", "Version": "2010-12-01"})
    assert found[2] == ("Could not find operation a\\x1b[31m\\u202eb for version 2010-12-01")


def test_very_many_violations_are_counted_and_the_first_are_listed(server):
    recipients = {f"BouncedRecipientInfoList.member.{n}.BounceType": "Nope" for n in range(1, 5001)}
    form = {"Action": "SendBounce", "Version": "2010-12-01", "BounceSender": SENDER}
    code, status, text = post(server, {**form, **recipients})
    assert (code, status) == ("ValidationError", 400)
    assert text.startswith("10001 validation errors detected: Value at 'originalMessageId'")
    assert len(text) <= 4096


def test_a_user_agent_is_not_cut_but_refused(server):
    assert "ListIdentitiesResult" in post(server, LIST, headers={"User-Agent": "x" * 2048})
    found = post(server, LIST, headers={"User-Agent": "x" * 2049})
    assert found[0] == "InvalidParameterValue"
    assert found[2].startswith("User-Agent: ")


def test_a_rule_has_at_most_500_recipients_and_a_bounce_100_extension_fields(server):
    ses = server.ses_client(parameter_validation=False)
    ses.create_receipt_rule_set(RuleSetName="one")
    recipients = [f"u{number}@example.com" for number in range(501)]
    rule = {"Name": "r", "Recipients": recipients[:500]}
    ses.create_receipt_rule(RuleSetName="one", Rule=rule)
    with pytest.raises(ses.exceptions.LimitExceededException, match="Too many recipients"):
        ses.create_receipt_rule(RuleSetName="one", Rule={"Name": "s", "Recipients": recipients})
    field = {"Name": "X-A", "Value": "b"}
    dsn = {"ReportingMta": "dns; a.example", "ExtensionFields": [field] * 101}
    with pytest.raises(ses.exceptions.ClientError, match="less than or equal to 100"):
        server.send_bounce(client=ses, arguments={"MessageDsn": dsn})


# --- one thing twice ---------------------------------------------------------------------------


def recipients_of(server, answer):
    dsn = parse(server.bounce(answer["MessageId"]).content)
    return [(recipient.final_recipient, recipient.status) for recipient in dsn.recipients]


def bounced(server, *entries, recipients=("bob@example.com", "ann@example.com")):
    return server.ses.send_bounce(
        OriginalMessageId=server.send_mail(recipients=recipients),
        BounceSender=SENDER,
        BouncedRecipientInfoList=list(entries),
    )


def entry(recipient, bounce_type="DoesNotExist", **fields):
    given = {"Recipient": recipient, "BounceType": bounce_type}
    if fields:
        given["RecipientDsnFields"] = {"Action": "failed", "Status": "5.7.1", **fields}
    return given


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (
            [entry("bob@example.com"), entry("bob@example.com")],
            [("bob@example.com", "5.1.1")],
        ),
        (
            [entry("bob@example.com", "ExceededQuota"), entry("bob@EXAMPLE.com")],
            [("bob@example.com", "5.2.2")],
        ),
        (
            [entry("ann@example.com"), entry("bob@example.com"), entry("ann@example.com")],
            [("ann@example.com", "5.1.1"), ("bob@example.com", "5.1.1")],
        ),
        (  # the same final recipient by two ways
            [
                entry("bob@example.com", FinalRecipient="x@elsewhere.example"),
                entry("ann@example.com", FinalRecipient="x@elsewhere.example"),
            ],
            [("x@elsewhere.example", "5.7.1")],
        ),
        (  # the same recipient of the message, with and without another final one
            [
                entry("bob@example.com", FinalRecipient="x@elsewhere.example"),
                entry("bob@example.com"),
            ],
            [("x@elsewhere.example", "5.7.1")],
        ),
    ],
)
def test_a_recipient_has_one_group_and_its_first_entry_counts(server, entries, expected):
    """RFC 3464 §2.3: one group of fields for each recipient."""
    assert recipients_of(server, bounced(server, *entries)) == expected


def test_nine_thousand_entries_for_one_recipient_are_one_group(server):
    answer = bounced(server, *[entry("bob@example.com")] * 9000, recipients=("bob@example.com",))
    assert recipients_of(server, answer) == [("bob@example.com", "5.1.1")]


def test_nine_thousand_recipients_that_are_none_are_refused(server):
    entries = [entry(f"u{number}@example.com") for number in range(9000)]
    with pytest.raises(Exception, match="Not a recipient of the original message"):
        bounced(server, *entries)


def test_a_thousand_recipients_are_bounced_at_once(running):
    server = running(send_bounce_rate="0")
    server.ses.verify_domain_identity(Domain="example.com")
    names = tuple(f"u{number}@example.com" for number in range(1000))
    answer = bounced(server, *map(entry, names), recipients=names)
    assert len(recipients_of(server, answer)) == 1000


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (["a", "b", "b", "a"], "Multiple positions found for rule: a"),
        (["b"], "Positions for rules not found: a"),
    ],
)
def test_reordering_is_checked_as_before(server, order, text):
    ses = server.ses
    ses.create_receipt_rule_set(RuleSetName="one")
    for name in ("b", "a"):
        ses.create_receipt_rule(RuleSetName="one", Rule={"Name": name})
    with pytest.raises(ses.exceptions.ClientError, match=text):
        ses.reorder_receipt_rule_set(RuleSetName="one", RuleNames=order)


# --- readiness and pages -----------------------------------------------------------------------


def status_of(url, data=None):
    try:
        with urllib.request.urlopen(url, data=data, timeout=20) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_readyz_needs_a_store_that_can_be_written(server):
    url = f"{server.endpoint}/readyz"
    assert status_of(url) == 200
    with write_lock(server.settings.database_url):
        time.sleep(1.1)  # the last result was good for a second
        assert status_of(url) == 503
        assert status_of(f"{server.endpoint}/healthz") == 200
    time.sleep(1.1)
    assert status_of(url) == 200


def test_readyz_writes_at_most_once_a_second_and_always_the_same_row(server):
    def row():
        query = "SELECT count(*), max(value) FROM installation WHERE name = 'checked_at'"
        return server.query(query)[0]

    url = f"{server.endpoint}/readyz"
    assert status_of(url) == 200
    before = row()
    server.app.clock.advance(server.settings.retention)
    assert {status_of(url) for _ in range(20)} == {200}
    assert row() == before
    time.sleep(1.1)
    assert status_of(url) == 200
    assert row()[0] == 1
    assert row() > before


@pytest.mark.parametrize(
    "link",
    ["x" * 5000, "x" * 30_000, "%00", "%FF", "a.b", ".", "<script>alert(1)</script>", "%0d%0aX:1"],
)
def test_hostile_links_are_no_links(server, link):
    url = f"{server.endpoint}/verify"
    assert status_of(f"{url}?t={link}") == 400
    assert status_of(url, f"t={link}".encode()) == 400
    assert status_of(url, b"&" * 8000) == 400
    assert status_of(url, b"a=b&" * 2000 + b"t=x") == 400
    assert status_of(url, b"t=" + b"x" * 500_000) == 400


def test_a_page_shows_what_is_in_a_link_as_text(server):
    page = raw(server, b"GET /verify?t=%22%3E%3Cscript%3E HTTP/1.1\r\nHost: <x>\r\n\r\n")
    assert b"<script" not in page.body
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_the_certificate_s_path_is_compared_whole(server):
    for name in ("x", "../secret", "%00", "x" * 20_000, "%2e%2e%2fsecret.key"):
        url = f"{server.endpoint}/SimpleNotificationService-{name}.pem"
        assert status_of(url) == 404


def test_an_answer_of_very_many_elements_is_xml(server):
    async def verify():
        names = (f"d{number}.example" for number in range(1500))
        identities = server.app.identities
        await asyncio.gather(*(identities.verify_domain("000000000000", name) for name in names))

    server.run(verify())
    listed = post(server, {**LIST, "MaxItems": "1000"})
    assert len(ET.fromstring(listed)[0][0]) == 1000


def test_a_mail_of_a_thousand_recipients_can_be_bounced_by_each(running):
    """A single entry is found in the envelope without walking through it for each."""
    server = running(send_bounce_rate="0")
    server.ses.verify_domain_identity(Domain="example.com")
    names = tuple(f"u{number}@example.com" for number in range(1000))
    message_id = send_mail(server.smtp_port, recipients=names)
    for name in (names[0], names[999]):
        answer = server.ses.send_bounce(
            OriginalMessageId=message_id,
            BounceSender=SENDER,
            BouncedRecipientInfoList=[entry(name)],
        )
        assert recipients_of(server, answer) == [(f"{name}", "5.1.1")]
