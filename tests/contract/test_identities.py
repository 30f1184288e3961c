import pytest
from botocore.exceptions import ClientError


def code(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"]


def test_verifying_listing_and_deleting(server):
    ses = server.ses()
    ses.verify_email_identity(EmailAddress="Ann@Other.Example")
    token = ses.verify_domain_identity(Domain="EXÄMPLE.net")["VerificationToken"]
    assert ses.list_identities()["Identities"] == [
        "Ann@other.example",
        "example.com",
        "xn--exmple-cua.net",
    ]
    assert ses.list_identities(IdentityType="EmailAddress")["Identities"] == ["Ann@other.example"]
    found = ses.get_identity_verification_attributes(
        Identities=["Ann@other.example", "exämple.net", "nobody.example"]
    )
    assert found["VerificationAttributes"] == {
        "Ann@other.example": {"VerificationStatus": "Success"},
        "exämple.net": {"VerificationStatus": "Success", "VerificationToken": token},
    }
    ses.delete_identity(Identity="ann@other.example")  # another local part: nothing happens
    assert len(ses.list_identities()["Identities"]) == 3
    ses.delete_identity(Identity="Ann@OTHER.example")
    ses.delete_identity(Identity="exämple.net")
    assert ses.list_identities()["Identities"] == ["example.com"]


def test_verifying_again_keeps_the_token(server):
    ses = server.ses()
    first = ses.verify_domain_identity(Domain="a.example")["VerificationToken"]
    assert ses.verify_domain_identity(Domain="a.example")["VerificationToken"] == first


def test_pages(server):
    ses = server.ses()
    for number in range(7):
        ses.verify_email_identity(EmailAddress=f"u{number}@other.example")
    pages = list(
        ses.get_paginator("list_identities").paginate(
            IdentityType="EmailAddress", PaginationConfig={"PageSize": 3}
        )
    )
    assert [len(page["Identities"]) for page in pages] == [3, 3, 1]
    assert sum((page["Identities"] for page in pages), []) == [
        f"u{number}@other.example" for number in range(7)
    ]


@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("verify_email_identity", {"EmailAddress": "nobody"}, "InvalidParameterValue"),
        ("verify_email_identity", {"EmailAddress": "a@b@c"}, "InvalidParameterValue"),
        ("verify_domain_identity", {"Domain": "not a domain"}, "InvalidParameterValue"),
        ("verify_domain_identity", {"Domain": "[127.0.0.1]"}, "InvalidParameterValue"),
        ("list_identities", {"MaxItems": 0}, "InvalidParameterValue"),
        ("list_identities", {"MaxItems": 1001}, "InvalidParameterValue"),
        ("list_identities", {"NextToken": "%%%"}, "InvalidParameterValue"),
        ("list_identities", {"IdentityType": "Other"}, "ValidationError"),
        (
            "get_identity_verification_attributes",
            {"Identities": ["x.example"] * 101},
            "InvalidParameterValue",
        ),
    ],
)
def test_what_is_refused(server, call, arguments, expected):
    assert code(getattr(server.ses(), call), **arguments) == expected


def test_a_deleted_identity_receives_no_more(server, clock):
    server.send_mail()
    server.ses().delete_identity(Identity="example.com")
    with pytest.raises(AssertionError):
        server.send_mail()


def test_quota_and_statistics(server):
    ses = server.ses()
    assert ses.get_send_quota()["SentLast24Hours"] == 0
    message = server.send_mail()
    for _ in range(3):
        ses.send_bounce(
            OriginalMessageId=message,
            BounceSender="a@example.com",
            BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "Undefined"}],
        )
    quota = ses.get_send_quota()
    assert quota["SentLast24Hours"] == 3
    assert (quota["Max24HourSend"], quota["MaxSendRate"]) == (50_000, 14)
    points = ses.get_send_statistics()["SendDataPoints"]
    assert [(point["DeliveryAttempts"], point["Bounces"]) for point in points] == [(3, 0)]
    assert points[0]["Timestamp"].minute % 15 == 0
