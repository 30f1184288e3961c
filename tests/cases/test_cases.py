"""Small mails that went wrong, each through a real server: what is right for it."""

import email
import json
import smtplib
import socket
from pathlib import Path

import pytest

from sendback.mail.address import parse_address
from sendback.mail.headers import field_values, header_section
from tests.cases.receiver import TOPIC, Receiver, read_case
from tests.mail.spellings import SPELLINGS
from tests.partners.dns_server import DnsServer
from tests.partners.webhook import Webhook

ZONE = """
_dmarc.bank.example. 300 IN TXT "v=DMARC1; p=reject"
evil.example. 300 IN TXT "v=spf1 ip4:127.0.0.1 -all"
x.servfail.example. 300 IN TXT "unused"
_dmarc.two.org.example. 300 IN TXT "v=DMARC1; p=none"
_dmarc.two.org.example. 300 IN TXT "v=DMARC1; p=reject"
_dmarc.org.example. 300 IN TXT "v=DMARC1; p=reject; sp=quarantine"
_dmarc.other.example. 300 IN TXT "v=DMARC1; p=quarantine"
"""
MAIL = (
    b"%s\r\nTo: bob@example.com\r\nSubject: hi\r\n"
    b"Date: Wed, 25 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\n\r\nhello\r\n"
)


@pytest.fixture
def hook():
    with Webhook() as webhook:
        yield webhook


@pytest.fixture
def receiver(running, hook):
    """Without DNS: only the events matter."""
    return Receiver(running, hook, dns="off")


@pytest.fixture
def judging(running, hook):
    with DnsServer(ZONE) as dns:
        yield Receiver(running, hook, dns=dns.address)


# --- DMARC ----------------------------------------------------------------------------------------


def lines(name):
    return read_case(name).decode().splitlines()


def test_the_spellings_of_the_cases_are_all_tried():
    given = {*lines("dmarc-from-spelling/from.txt"), *lines("dmarc-from-python313/from.txt")}
    assert given <= set(SPELLINGS)


def test_no_spelling_of_the_author_does_better_than_fail(judging):
    found = {
        spelling: judging.verdicts(MAIL % (b"From: " + spelling.encode())) for spelling in SPELLINGS
    }
    assert len(found) > 50
    assert {verdict for _, _, verdict in found.values()} == {"FAIL"}, found
    assert {spf for spf, _, _ in found.values()} == {"PASS"}


@pytest.mark.parametrize(
    "header",
    [
        b"From: x@evil.example\r\nFrom: service@bank.example",
        b"From: service@bank.example\r\nFrom: x@evil.example",
        b"From: x@evil.example, service@bank.example",
        b"From: x@evil.example service@bank.example",
        b"From: <x@evil.example> <service@bank.example>",
        b"From: x@x.servfail.example, service@bank.example",
        b"From: ann@[127.0.0.1], service@bank.example",
        b"garbage\r\nFrom: service@bank.example",
        b" garbage\r\nFrom: service@bank.example",
        b"X: y\r\ngarbage\r\n more\r\nFrom: service@bank.example",
        b"F\xc3\xb6: y\r\nFrom: service@bank.example",
        b": y\r\nFrom: service@bank.example",
        b"From x@evil.example Mon\r\nFrom: service@bank.example",
        b"From : service@bank.example",
        b"From:\r\n service@bank.example",
        b"FROM:service@bank.example",
        b"From:",
        b"From: Bank",
        b"From: " + b"a" * 40_000 + b"@bank.example",
    ],
)
def test_no_arrangement_of_fields_does_better_than_fail(judging, header):
    receipt = judging.receive(MAIL % header, "x@evil.example")["receipt"]
    assert receipt["spfVerdict"]["status"] == "PASS"
    assert receipt["dmarcVerdict"]["status"] == "FAIL"
    if header.endswith(b"service@bank.example"):
        assert receipt["dmarcPolicy"] == "reject"


@pytest.mark.parametrize(
    ("name", "sender"),
    [
        ("spf.eml", "x@fails.servfail.example"),
        ("dkim-servfail.eml", "x@evil.example"),
        ("dkim-selector.eml", "x@evil.example"),
    ],
)
def test_an_error_about_another_domain_hides_no_failure(judging, name, sender):
    content = read_case(f"dmarc-unaligned-temperror/{name}")
    content = content.replace(b"fails.evil.example", b"fails.servfail.example")
    receipt = judging.receive(content, sender)["receipt"]
    assert receipt["dmarcVerdict"]["status"] == "FAIL"
    assert receipt["dmarcPolicy"] == "reject"


def test_an_error_about_the_authors_own_domain_is_one(judging):
    content = MAIL % b"From: service@bank.example"
    signature = (
        b"DKIM-Signature: v=1; a=rsa-sha256; d=servfail.bank.example; s=s1; h=From;\r\n"
        b" bh=AAAA; b=AAAA\r\n"
    )
    assert judging.verdicts(signature + content) == (
        "PASS",
        "PROCESSING_FAILED",
        "PROCESSING_FAILED",
    )
    assert judging.verdicts(content, "x@servfail.bank.example")[2] == "PROCESSING_FAILED"
    unknown = MAIL % b"From: service@servfail.example"
    assert judging.verdicts(unknown)[2] == "PROCESSING_FAILED"


def test_two_records_end_the_search(judging):
    assert judging.verdicts(read_case("dmarc-two-records/mail.eml"))[2] == "GRAY"


def test_an_address_literal_has_no_policy(judging):
    found = judging.verdicts(read_case("from-address-literal/mail.eml"))
    assert found == ("PASS", "GRAY", "GRAY")


def test_a_mail_whose_first_line_begins_with_a_space(judging):
    notification = judging.receive(read_case("first-line-space/mail.eml"), "x@evil.example")
    receipt, common = notification["receipt"], notification["mail"]["commonHeaders"]
    assert receipt["spfVerdict"]["status"] == "PASS"
    assert receipt["dmarcVerdict"]["status"] == "FAIL"
    assert (common["from"], common["subject"]) == (["service@bank.example"], "hi")


# --- events ---------------------------------------------------------------------------------------


def test_lists_are_read_alike_on_every_python(receiver):
    common = receiver.common(read_case("dmarc-from-python313/lists.eml"))
    assert common["from"] == ["ann@sender.example"]
    assert common["to"] == ['"x, y" <bob@example.com>', "tom@example.net"]
    assert common["cc"] == ["a@example.net", "b@example.net"]
    assert common["replyTo"] == ["c@example.net", "d@example.net"]


def test_an_empty_address_field_is_not_there(receiver):
    common = receiver.common(read_case("empty-address-field/mail.eml"))
    assert common.keys().isdisjoint({"cc", "bcc", "replyTo"})
    assert common["to"] == ["bob@example.com"]


def test_words_in_all_charsets_are_decoded(receiver):
    assert receiver.common(read_case("encoded-word-charsets/labels.eml"))["subject"] == "กüב日"
    common = receiver.common(read_case("encoded-word-charsets/lang.eml"))
    assert common["from"] == ["Keith Example <ann@sender.example>"]
    assert common["subject"] == "Grüße"
    assert receiver.common(read_case("encoded-word-charsets/split.eml"))["subject"] == "üüü"


def test_deep_nesting_is_no_reason_to_stay_silent(receiver):
    common = receiver.common(read_case("from-deep-nesting/colons.eml"))
    assert (common["from"], common["to"]) == (["ann@sender.example"], ["bob@example.com"])
    common = receiver.common(read_case("from-deep-nesting/parens.eml"))
    assert common["from"] == ["ann@sender.example"]
    assert common["to"][0].count("(") > 500


def test_a_display_name_that_is_an_address(receiver):
    common = receiver.common(read_case("from-name-is-address/mail.eml"))
    assert common["from"] == ['"support@shop.example" <news@mailer.example>']
    common = receiver.common(read_case("from-name-is-address/space.eml"))
    assert common["from"] == ["tim@shop.example", "jo@shop.example"]


MALFORMED = [
    b" by trusted.example\r\nFrom: a@x.example\r\nSubject: s\r\n\r\nbody\r\n",
    b"\tx\r\n y\r\nFrom: a@x.example\r\nSubject: s\r\n\r\nbody\r\n",
    b"no field\r\nFrom: a@x.example\r\nSubject: s\r\n\r\nbody\r\n",
    b"From: a@x.example\r\nno field\r\nSubject: s\r\n\r\nbody\r\n",
    b"From: a@x.example\r\n: no name\r\n folded\r\nSubject: s\r\n\r\nbody\r\n",
    b"From: a@x.example\r\nSubject : s\r\n\r\nbody\r\n",
    b"From: a@x.example\r\nSubject: s\r\nbody\r\n",
    b"From a Mon\r\nFrom: a@x.example\r\nSubject: s\r\n\r\nbody\r\n",
    b"From: a@x.example\r\nno field\r\n\r\nbody\r\nSubject: none\r\n",
    b"just text\r\n",
    b" just text\r\n\r\nmore\r\n",
    b"\r\nFrom: in the body\r\n",
]


@pytest.mark.parametrize("content", MALFORMED)
def test_everybody_reads_the_same_header_section(receiver, content):
    """The event, the stored object, the bounce, and what `messages show` prints."""
    notification = receiver.receive(content)
    common, message_id = notification["mail"]["commonHeaders"], notification["mail"]["messageId"]
    stored = email.message_from_bytes(receiver.stored(message_id))
    assert not stored.defects
    assert common.get("from") == ([stored["From"]] if stored["From"] else None)
    assert common.get("subject") == stored["Subject"]
    assert stored["Received"].rstrip().endswith("+0000 (UTC)")
    assert stored.get_all("X-SES-RECEIPT")[0].strip().isprintable()
    published = email.message_from_string(notification["content"])
    assert published.items() == stored.items()
    assert published.get_payload().replace("\r\n", "\n") == stored.get_payload().replace(
        "\r\n", "\n"
    )
    receiver.server.ses.send_bounce(
        OriginalMessageId=message_id,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}],
    )
    bounce = email.message_from_bytes(receiver.server.outbox()[0].content)
    returned = email.message_from_string(bounce.get_payload()[2].get_payload())
    assert returned["Subject"] == stored["Subject"]
    assert returned["From"] == stored["From"]
    assert len(returned.get_all("Received")) == 1


def test_no_text_of_a_mail_without_an_empty_line_is_lost(receiver):
    for content in MALFORMED:
        stored = receiver.stored(receiver.receive(content)["mail"]["messageId"])
        words = content.replace(b" :", b":").split()
        assert [word for word in words if word not in stored] == []


def test_a_mail_that_goes_round_in_a_circle_is_refused(receiver):
    hops = b"Received: from a by b; Wed, 25 Nov 2026 12:00:00 +0000\r\n"
    mail = MAIL % b"From: ann@sender.example"
    assert receiver.send(hops * 100 + mail).startswith("250")
    assert receiver.send(hops * 101 + mail).startswith("554 5.4.6")
    assert receiver.send(b"RECEIVED : x\r\n" * 101 + mail).startswith("554 5.4.6")
    assert receiver.send(mail + b"Received: in the body\r\n" * 200).startswith("250")


# --- SMTP -----------------------------------------------------------------------------------------


def dialogue(port, name):
    """The replies to a file of commands, one after the other."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        replies = client.makefile("rb")
        assert replies.readline().startswith(b"220")
        found = []
        for command in read_case(name).splitlines(keepends=True):
            client.sendall(command)
            line = replies.readline()
            while line[3:4] == b"-":
                line = replies.readline()
            found.append(line.decode()[:3])
    return found


def test_a_client_may_call_itself_what_it_likes(receiver):
    port = receiver.server.smtp_port
    assert dialogue(port, "ehlo-names/dialogue.txt") == ["250", "250", "250", "221"]


def test_local_parts_that_look_like_routes_are_mailboxes(receiver):
    port = receiver.server.smtp_port
    found = dialogue(port, "local-parts/dialogue.txt")
    assert found == ["250", "250", "250", "250", "250", "221"]


def test_every_case_has_its_test():
    """Those of the DSN reader are with its tests."""
    text = Path(__file__).read_text("utf-8")
    folders = [folder for folder in Path(__file__).parent.iterdir() if folder.is_dir()]
    names = [folder.name for folder in folders if not folder.name.startswith(("dsn-", "__"))]
    assert names
    assert [name for name in names if f"{name}/" not in text] == []


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling", ['"ceo"@example.com', '"c\\eo"@EXAMPLE.com', "ceo@Example.Com"]
)
def test_a_rule_for_an_address_holds_for_every_spelling(running, hook, spelling):
    server = running(dns="off")
    server.set_up(
        f"""
        identities = ["example.com"]
        active_rule_set = "main"
        topics = {{ "{TOPIC}" = "{hook.url}" }}
        [[rule_sets.main.rules]]
        Name = "ceo"
        Recipients = ["ceo@example.com"]
        Actions = [
          {{ SNSAction = {{ TopicArn = "{TOPIC}" }} }},
          {{ StopAction = {{ Scope = "RuleSet" }} }},
        ]
        [[rule_sets.main.rules]]
        Name = "others"
        Actions = [{{ AddHeaderAction = {{ HeaderName = "X-A", HeaderValue = "b" }} }}]
        """
    )
    message_id = server.send_mail(recipients=(spelling,))
    assert [step.rule for step in server.steps(message_id)] == ["ceo", "ceo"]
    receipt = json.loads(json.loads(hook.next()[1])["Message"])["receipt"]
    assert parse_address(receipt["recipients"][0]).key == "ceo@example.com"


def test_one_mailbox_in_two_spellings_is_one_recipient(receiver):
    with smtplib.SMTP("127.0.0.1", receiver.server.smtp_port) as smtp:
        smtp.ehlo()
        smtp.mail("ann@sender.example")
        for text in ("bob@example.com", '"bob"@example.com', "bob@EXAMPLE.com"):
            assert smtp.rcpt(text)[0] == 250
        assert smtp.data(MAIL % b"From: ann@sender.example")[0] == 250
    notification = json.loads(json.loads(receiver.hook.next()[1])["Message"])
    assert notification["mail"]["destination"] == ["bob@example.com"]


def test_a_sender_with_odd_dots_gets_its_bounce(running):
    server = running(send_bounce_rate="0")
    server.ses.verify_domain_identity(Domain="example.com")
    server.send_bounce(sender="taro..yamada@docomo.example")
    (bounce,) = server.outbox()
    assert str(bounce.recipient) == "taro..yamada@docomo.example"
    assert bounce.domain == "docomo.example"
    header = header_section(bounce.content)
    assert field_values(header, "To") == [b'"taro..yamada"@docomo.example']
