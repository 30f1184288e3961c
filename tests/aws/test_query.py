from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.aws.errors import SesError
from sendback.aws.model import operation_model, operation_names
from sendback.aws.query import decode

LIST = "BouncedRecipientInfoList"
MINIMAL = [
    ("OriginalMessageId", "id1"),
    ("BounceSender", "a@example.com"),
    (f"{LIST}.member.1.Recipient", "b@example.com"),
]


def bounce(*pairs: tuple[str, str]):
    return decode(operation_model("SendBounce"), [*MINIMAL, *pairs])


def error(*pairs: tuple[str, str], operation: str = "SendBounce", minimal: bool = True):
    with pytest.raises(SesError) as caught:
        decode(operation_model(operation), [*(MINIMAL if minimal else []), *pairs])
    return caught.value


def test_reads_structures_and_lists():
    assert bounce((f"{LIST}.member.2.Recipient", "c@example.com")) == {
        "OriginalMessageId": "id1",
        "BounceSender": "a@example.com",
        LIST: [{"Recipient": "b@example.com"}, {"Recipient": "c@example.com"}],
    }


def test_lists_are_in_the_order_of_their_numbers_and_may_have_gaps():
    decoded = decode(
        operation_model("GetIdentityVerificationAttributes"),
        [(f"Identities.member.{n}", str(n)) for n in (10, 9, 2)],
    )
    assert decoded == {"Identities": ["2", "9", "10"]}


def test_an_empty_value_is_how_the_sdks_write_an_empty_list():
    decoded = bounce(("MessageDsn.ReportingMta", "dns; x"), ("MessageDsn.ExtensionFields", ""))
    assert decoded["MessageDsn"]["ExtensionFields"] == []


def test_what_the_model_does_not_know_is_ignored():
    assert "Nonsense" not in bounce(("Nonsense", "1"), ("Nonsense2.member.1", "x"))


@pytest.mark.parametrize(
    "text",
    [
        "2015-10-01T13:48:54Z",
        "2015-10-01T13:48:54.000Z",
        "2015-10-01T15:48:54+02:00",
        "2015-10-01T13:48:54",
        "Thu, 01 Oct 2015 13:48:54 +0000",
        "Thu, 01 Oct 2015 13:48:54 GMT",
    ],
)
def test_timestamps_are_iso_8601_or_rfc_822(text):
    decoded = bounce(("MessageDsn.ReportingMta", "dns; x"), ("MessageDsn.ArrivalDate", text))
    assert decoded["MessageDsn"]["ArrivalDate"] == datetime(2015, 10, 1, 13, 48, 54, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2015-13-01", "0001-01-01T00:00:00+23:00"])
def test_a_bad_timestamp_is_named(text):
    found = error(("MessageDsn.ReportingMta", "dns; x"), ("MessageDsn.ArrivalDate", text))
    assert found.code == "InvalidParameterValue"
    assert "MessageDsn.ArrivalDate" in found.message


def test_missing_members_are_collected_in_awss_wording():
    found = error(minimal=False)
    assert found.code == "ValidationError"
    assert found.message == (
        "3 validation errors detected: "
        "Value at 'originalMessageId' failed to satisfy constraint: Member must not be null; "
        "Value at 'bounceSender' failed to satisfy constraint: Member must not be null; "
        "Value at 'bouncedRecipientInfoList' failed to satisfy constraint: Member must not be null"
    )


def test_an_empty_list_of_recipients_is_too_short():
    pairs = [("OriginalMessageId", "i"), ("BounceSender", "a@b.example"), (LIST, "")]
    assert error(*pairs, minimal=False).message == (
        "1 validation error detected: Value at 'bouncedRecipientInfoList' failed to satisfy "
        "constraint: Member must have length greater than or equal to 1"
    )


def test_an_enum_violation_names_its_path_and_what_is_allowed():
    found = error((f"{LIST}.member.1.BounceType", "Nope"))
    assert found.message == (
        "1 validation error detected: Value at "
        "'bouncedRecipientInfoList.1.member.bounceType' failed to satisfy constraint: Member must "
        "satisfy enum value set: [DoesNotExist, MessageTooLarge, ExceededQuota, ContentRejected, "
        "Undefined, TemporaryFailure]"
    )


@pytest.mark.parametrize(
    "pairs",
    [
        [("OriginalMessageId", "again")],
        [("OriginalMessageId.x", "y")],
        [(LIST, "x")],
        [(f"{LIST}.1.Recipient", "x")],
        [("MessageDsn", "x")],
        [(f"{LIST}.member.1", "x")],
    ],
)
def test_what_contradicts_the_shape_is_an_invalid_query_parameter(pairs):
    assert error(*pairs).code == "InvalidQueryParameter"


@pytest.mark.parametrize("index", ["x", "0", "01", "-1", "²", "", "2147483648", "9" * 100])
def test_an_invalid_index_is_malformed_input(index):
    found = error((f"{LIST}.member.{index}.Recipient", "x"))
    assert (found.code, found.message) == ("MalformedInput", f"{index} is not a valid index")


_names = st.one_of(
    st.sampled_from(["Action", "Version", *[name for name, _ in MINIMAL], "MessageDsn", LIST]),
    st.lists(
        st.sampled_from(["member", "1", "2", "Recipient", "Rule", "MessageDsn", LIST, "", "Name"])
    ).map(".".join),
    st.text(),
)


@given(st.sampled_from(sorted(operation_names())), st.lists(st.tuples(_names, st.text())))
def test_any_request_is_decoded_or_refused(operation, pairs):
    try:
        decode(operation_model(operation), pairs)
    except SesError as found:
        assert found.http_status < 500
