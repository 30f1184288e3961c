import xml.etree.ElementTree as ET
from datetime import UTC, datetime

from botocore.parsers import QueryParser
from hypothesis import given
from hypothesis import strategies as st

from sendback.aws.errors import SesError
from sendback.aws.model import operation_model
from sendback.aws.response import encode_error, encode_success


def test_the_form_of_a_success():
    body = encode_success(operation_model("SendBounce"), {"MessageId": "m<1>"}, "r1")
    assert body == (
        b'<SendBounceResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><SendBounceResult>'
        b"<MessageId>m&lt;1&gt;</MessageId></SendBounceResult><ResponseMetadata>"
        b"<RequestId>r1</RequestId></ResponseMetadata></SendBounceResponse>"
    )


def test_an_operation_without_a_result_has_no_result_element():
    body = encode_success(operation_model("DeleteVerifiedEmailAddress"), {}, "r1")
    assert body == (
        b"<DeleteVerifiedEmailAddressResponse "
        b'xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><ResponseMetadata>'
        b"<RequestId>r1</RequestId></ResponseMetadata></DeleteVerifiedEmailAddressResponse>"
    )


def test_the_form_of_an_error():
    body = encode_error(SesError("AlreadyExists", "Rule & co", {"Name": "<r>"}), "r1")
    assert body == (
        b'<ErrorResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><Error>'
        b"<Type>Sender</Type><Code>AlreadyExists</Code><Message>Rule &amp; co</Message>"
        b"<Name>&lt;r&gt;</Name></Error><RequestId>r1</RequestId></ErrorResponse>"
    )


def test_lists_maps_and_dates_are_read_back_by_botocore():
    model = operation_model("GetIdentityVerificationAttributes")
    output = {
        "VerificationAttributes": {
            "a@example.com": {"VerificationStatus": "Success"},
            "b.example": {"VerificationStatus": "Pending", "VerificationToken": "t="},
        }
    }
    assert _read_back(model, output) == output
    model = operation_model("GetSendStatistics")
    point = {"Timestamp": datetime(2026, 3, 1, tzinfo=UTC), "DeliveryAttempts": 3, "Bounces": 0}
    assert _read_back(model, {"SendDataPoints": [point]}) == {"SendDataPoints": [point]}


def _read_back(model, output):
    response = {
        "status_code": 200,
        "headers": {},
        "body": encode_success(model, output, "r1"),
    }
    parsed = QueryParser().parse(response, model.output_shape)
    parsed.pop("ResponseMetadata")
    return parsed


@given(st.text())
def test_any_text_is_well_formed_xml_and_stays_one_element(text):
    root = ET.fromstring(encode_error(SesError("X", text), "r1"))
    error = root[0]
    assert [child.tag.rpartition("}")[2] for child in error] == ["Type", "Code", "Message"]
