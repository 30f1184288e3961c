"""What is written, held against golden files and against readers that others wrote."""

import email
import email.policy
from dataclasses import replace

import pytest
from flufl.bounce import all_failures
from hypothesis import given
from hypothesis import strategies as st

from sendback.dsn import (
    Action,
    DsnError,
    ExtensionField,
    MtaName,
    OriginalRecipient,
    RecipientFields,
    ReturnedHeaders,
    ReturnedMessage,
    compose,
    parse,
    parse_address,
)
from sendback.dsn.model import STATUS_CLASSES
from tests.dsn.cases import CASES, HEADERS, bounce, recipient
from tests.golden import check_golden

BOUNDARY = "b-1"


@pytest.mark.parametrize("name", CASES)
def test_golden_file(name):
    check_golden(f"dsn/{name}.eml", compose(CASES[name], BOUNDARY))


@pytest.mark.parametrize("name", CASES)
def test_the_wire_form(name):
    content = compose(CASES[name], BOUNDARY)
    lines = content.split(b"\r\n")
    assert content.endswith(b"\r\n")
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)
    assert max(map(len, lines)) <= 998
    if not CASES[name].needs_smtputf8 and not CASES[name].needs_8bitmime:
        assert content.isascii()


@pytest.mark.parametrize("name", CASES)
def test_the_standard_library_reads_it_without_defects(name):
    content = compose(CASES[name], BOUNDARY)
    message = email.message_from_bytes(content, policy=email.policy.SMTPUTF8)
    parts = list(message.iter_parts())
    assert [part.get_content_type() for part in parts] == [
        "text/plain",
        "message/delivery-status",
        "message/rfc822" if name.startswith("return-full") else "text/rfc822-headers",
    ]
    assert not any(part.defects for part in message.walk())
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["Auto-Submitted"] == "auto-replied"
    groups = parts[1].get_payload()
    assert len(groups) == 1 + len(CASES[name].report.recipients)


@pytest.mark.parametrize("name", CASES)
def test_flufl_bounce_finds_exactly_the_failed_recipients(name):
    case = CASES[name]
    temporary, permanent = all_failures(email.message_from_bytes(compose(case, BOUNDARY)))
    assert set(permanent) == _found_by_flufl(case, Action.FAILED)
    assert set(temporary) == _found_by_flufl(case, Action.DELAYED)


def _found_by_flufl(case, action):
    """It prefers the original recipient, and knows nothing of type utf-8 (RFC 6533)."""
    return {
        (
            entry.original_recipient.address
            if entry.original_recipient
            else f"{entry.final_recipient.local}@{entry.final_recipient.ascii_domain}"
        ).encode()
        for entry in case.report.recipients
        if entry.action is action and not entry.final_recipient.needs_smtputf8
    }


@pytest.mark.parametrize("name", CASES)
def test_our_own_reader_agrees(name):
    case = CASES[name]
    parsed = parse(compose(case, BOUNDARY))
    assert [entry.action for entry in parsed.recipients] == [
        entry.action.value for entry in case.report.recipients
    ]
    assert [entry.status for entry in parsed.recipients] == [
        entry.status for entry in case.report.recipients
    ]
    assert parsed.returned.removesuffix(b"\r\n") == case.returned.octets.removesuffix(b"\r\n")


def test_the_form_of_recorded_ses_bounces():
    """Headers, parts, descriptions and fields in their order; `Auto-Submitted` is added."""
    message = email.message_from_bytes(compose(CASES["ses-recorded-form"], BOUNDARY))
    ours = [name for name in message.keys() if name != "Auto-Submitted"]  # noqa: SIM118
    assert ours == [
        "Date", "From", "To", "Message-ID", "Subject", "MIME-Version", "Content-Type",
    ]  # fmt: skip
    assert message["Subject"] == "Delivery Status Notification (Failure)"
    human, report, returned = message.get_payload()
    assert [part["Content-Description"] for part in (human, report, returned)] == [
        "Notification",
        "Delivery Status Notification",
        "Undelivered Message",
    ]
    assert human.get_payload() == "This message could not be delivered.\r\n"
    assert returned.get_content_type() == "text/rfc822-headers"
    general, one = report.get_payload()
    assert general.items() == [
        ("Reporting-MTA", "dns; inbound-smtp.us-west-2.amazonaws.com"),
        ("Arrival-Date", "Thu, 01 Oct 2015 13:48:54 +0000"),
    ]
    assert one.items() == [
        ("Action", "failed"),
        ("Final-Recipient", "rfc822; userunknown@example.net"),
        ("Original-Recipient", "rfc822; userunknown@example.net"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 Mailbox does not exist"),
        ("Status", "5.1.1"),
    ]


def test_the_returned_header_is_octet_for_octet():
    content = compose(bounce(), BOUNDARY)
    assert content.count(HEADERS) == 1


def test_a_boundary_that_occurs_in_the_mail_is_lengthened():
    content = compose(CASES["other-boundary"], BOUNDARY)
    assert b'boundary="b-1x"' in content
    assert len(list(email.message_from_bytes(content).get_payload())) == 3
    content = compose(CASES["return-full-boundary-like-line"], BOUNDARY)
    assert b'boundary="b-1x"' in content
    assert len(list(email.message_from_bytes(content).get_payload())) == 3


def test_8_bit_content_is_declared_as_such():
    content = compose(CASES["return-full-8-bit"], BOUNDARY)
    assert content.count(b"Content-Transfer-Encoding: 8bit\r\n") == 2
    assert "Grüße".encode() in content


def test_a_body_cut_in_the_middle():
    """What goes back whole is whole, octet for octet; what cannot is refused, not cut."""
    octets = HEADERS + b"\r\n" + (b"x" * 998 + b"\r\n") * 1000
    assert octets in compose(bounce(returned=ReturnedMessage(octets)), BOUNDARY)
    for bad in (b"x" * 999 + b"\r\n", b"a\nb\r\n", b"a\rb\r\n", b"a\0b\r\n"):
        with pytest.raises(DsnError) as caught:
            ReturnedMessage(HEADERS + b"\r\n" + bad)
        assert caught.value.field == "returned message"


def test_a_value_cannot_forge_a_field():
    for forged in ("x\r\nFinal-Recipient: rfc822; eve@example.net", "x\n\nAction: failed", "a\0b"):
        with pytest.raises(DsnError) as caught:
            recipient(diagnostic_code=f"smtp; {forged}")
        assert caught.value.field == "Diagnostic-Code"
        with pytest.raises(DsnError):
            ExtensionField("X-A", forged)
        with pytest.raises(DsnError):
            compose(replace(bounce(), sender=f"a@example.net{forged}"), BOUNDARY)


@pytest.mark.parametrize("separator", ["\u0085", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c"])
def test_unicode_line_ends_are_refused_too(separator):
    with pytest.raises(DsnError):
        ExtensionField("X-A", f"a{separator}b")


# Mistakes seen in other implementations, each by its name.


def test_status_made_from_the_replys_digits():
    with pytest.raises(DsnError):
        recipient(status="5.5.0.1")
    assert b"Status: 5.2.2\r\n" in compose(CASES["reason-exceededquota"], BOUNDARY)


def test_a_status_comment_without_parentheses():
    with pytest.raises(DsnError):
        recipient(status="5.1.1 no such user")
    assert recipient(status="5.1.1 (no such user)")


@pytest.mark.parametrize(
    "status", ["", "550", "5.1", "3.1.1", "5.01.1", "5.1.1000", "5.1.1\n", "５.1.1"]
)
def test_the_error_text_as_status(status):
    with pytest.raises(DsnError):
        recipient(status=status)


@pytest.mark.parametrize(
    ("action", "status"),
    [("failed", "2.0.0"), ("delayed", "5.0.0"), ("delivered", "4.0.0"), ("relayed", "5.0.0")],
)
def test_a_status_that_does_not_agree_with_the_action(action, status):
    with pytest.raises(DsnError):
        recipient(action=Action(action), status=status)


def test_message_rfc822_headers():
    assert b"message/rfc822-headers" not in compose(bounce(), BOUNDARY)


def test_utf8_for_utf_8():
    content = compose(CASES["non-ascii-local-part"], BOUNDARY)
    assert rb"Final-Recipient: utf-8; b\x{FC}b@example.net" in content


def test_the_message_id_as_original_envelope_id():
    assert b"Original-Envelope-Id" not in compose(bounce(), BOUNDARY)


def test_parameters_on_message_delivery_status():
    assert b"Content-Type: message/delivery-status\r\n" in compose(bounce(), BOUNDARY)


def test_8_bit_text_declared_7bit():
    content = compose(CASES["8-bit-header"], BOUNDARY)
    assert content.isascii()
    assert b"quoted-printable" in content


def test_a_two_digit_year():
    assert b"Arrival-Date: Thu, 01 Oct 2015 13:48:54 +0000\r\n" in compose(bounce(), BOUNDARY)


def test_an_original_recipient_that_nobody_gave():
    assert b"Original-Recipient" not in compose(bounce(), BOUNDARY)


def test_an_extension_is_no_standard_field_in_any_case():
    for name in ("status", "FINAL-RECIPIENT", "Action", "a b", "", "x" * 51, "X:"):
        with pytest.raises(DsnError):
            ExtensionField(name, "x")


def test_an_extension_that_cannot_be_folded_is_refused_when_it_is_made():
    with pytest.raises(DsnError) as caught:
        ExtensionField("X-Long", "x" * 2048)
    assert caught.value.field == "X-Long"


@pytest.mark.parametrize("text", ["", "dns", "dns;", "; x", "dns; a b", "d ns; x", "dns; x\n"])
def test_a_bad_mta_name_is_refused(text):
    with pytest.raises(DsnError):
        MtaName.from_text(text, "Reporting-MTA")


def _flufl_agrees(message, recipients):
    """It misreads addresses with `=` and prefers original recipients, here any text: left out."""
    if any("=" in str(e.final_recipient) or e.original_recipient for e in recipients):
        return
    temporary, permanent = all_failures(message)
    for found, action in ((permanent, Action.FAILED), (temporary, Action.DELAYED)):
        assert found == {
            f"{entry.final_recipient.local}@{entry.final_recipient.ascii_domain}".encode()
            for entry in recipients
            if entry.action is action and not entry.final_recipient.needs_smtputf8
        }


_addresses = st.sampled_from(
    ["bob@example.net", '"a b"@example.net', "büb@example.net", "x@exämple.net", "a=b@example.net"]
).map(parse_address)
_texts = st.one_of(st.text(max_size=60), st.text("ab \t", max_size=1200))


@st.composite
def _recipients(draw):
    action = draw(st.sampled_from(Action))
    digit = draw(st.sampled_from(STATUS_CLASSES[action]))
    fields = {
        "final_recipient": draw(_addresses),
        "action": action,
        "status": draw(st.one_of(st.just(f"{digit}.1.1"), _texts)),
        "diagnostic_code": draw(st.one_of(st.none(), _texts.map("smtp; {}".format), _texts)),
        "original_recipient": draw(
            st.one_of(
                st.none(),
                st.builds(OriginalRecipient, st.sampled_from(["rfc822", "utf-8"]), _texts),
            )
        ),
        "extension_fields": draw(
            st.lists(st.tuples(st.sampled_from(["X-A", "Status", "X-B"]), _texts), max_size=2)
        ),
    }
    return fields


@pytest.mark.fuzz
@given(
    st.lists(_recipients(), min_size=1, max_size=3),
    st.one_of(st.none(), st.text(max_size=200)),
    st.binary(max_size=200),
    st.one_of(st.none(), _texts),
    st.one_of(st.just("postmaster@example.net"), _texts),
)
def test_anything_is_refused_by_name_or_read_back_as_it_was_meant(
    groups, explanation, returned, envelope_id, sender
):
    try:
        recipients = [
            RecipientFields(
                **{
                    **fields,
                    "extension_fields": tuple(
                        ExtensionField(*pair) for pair in fields["extension_fields"]
                    ),
                }
            )
            for fields in groups
        ]
        content = compose(
            bounce(
                *recipients,
                explanation=explanation,
                returned=ReturnedHeaders(returned),
                original_envelope_id=envelope_id,
                sender=sender,
            ),
            BOUNDARY,
        )
    except DsnError as error:
        assert error.field
        assert error.rule
        return
    parsed = parse(content)
    assert len(parsed.recipients) == len(recipients)
    for written, read in zip(recipients, parsed.recipients, strict=True):
        assert read.action == written.action.value
        assert read.status == written.status
    message = email.message_from_bytes(content)
    assert len(message.get_payload()) == 3
    assert len(message.get_payload(1).get_payload()) == 1 + len(recipients)
    _flufl_agrees(message, recipients)
    assert message.keys() == [
        "Date", "From", "To", "Message-ID", "Subject", "In-Reply-To", "References",
        "Auto-Submitted", "MIME-Version", "Content-Type",
    ]  # fmt: skip
