"""The worst requests of two megabytes: the steps that they cost are linear, and bounded.

What reaches a function in C is bounded by the edge (`api/connections.py`) and the decoder, so the
steps between them are counted here.
"""

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from sendback.api.forms import MAX_PARAMETERS, MAX_QUERY_PARAMETERS, parse_form
from sendback.api.operations.bounce import parse_request
from sendback.authz.evaluate import AccessRequest, Requester, evaluate
from sendback.authz.policy import PolicyError, PolicyKind, parse_policy
from sendback.aws.errors import SesError, validation_error
from sendback.aws.model import operation_model
from sendback.aws.query import decode
from sendback.aws.response import encode_error
from sendback.aws.sigv4 import SignedRequest, read_credentials, verify
from sendback.dsn.texts import builtin_texts, choose_texts
from sendback.mail.address import Address
from sendback.mail.envelope import Recipient
from sendback.receipt.constraints import check_order, check_rule
from sendback.receipt.filters import parse_cidr
from sendback.receipt.model import Rule, StopAction
from sendback.service.bouncing.access import Use, entries_of, entry_of
from tests.partners.steps import LINEAR, assert_linear, steps

SIZE = 2 * 2**20
LIST = "BouncedRecipientInfoList.member"
EXTENSIONS = f"{LIST}.1.RecipientDsnFields.ExtensionFields.member"
# A request of the most parameters that are allowed, with every one of them read and checked.
MOST_STEPS = 5_000_000


def refusable(work):
    """The work, which may end in a refusal."""

    def run(size):
        try:
            return work(size)
        except (SesError, PolicyError, ValueError) as error:
            assert len(str(error)) < 5000
            return None

    return run


def filled(unit, size):
    """The repetition of it that has about this size."""
    return unit * (size // len(unit))


def form(make, size):
    """Numbered pairs up to this size, and no more of them than may be."""
    pairs, octets = [], 0
    for number in range(1, MAX_PARAMETERS):
        pairs.append(make(number))
        octets += len(pairs[-1]) + 1
        if octets >= size:
            break
    return "&".join(pairs)


def read(operation, body):
    """As the dispatcher does it."""
    return decode(operation_model(operation), parse_form(body.encode()))


# --- forms -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        lambda n: filled("&", n),
        lambda n: filled("=", n),
        lambda n: filled("a=&", n),
        lambda n: filled("+", n),
        lambda n: filled("%41", n),
        lambda n: filled("%", n),
        lambda n: "x=" + filled("%C3%A4", n),
        lambda n: "x=" + filled("%00", n),
        lambda n: filled("a.", n) + "=x",
        lambda n: filled(".", n) + "=x",
        lambda n: "OriginalMessageId=" + filled("a", n),
        lambda n: "OriginalMessageId=" + filled("%0A", n),
        lambda n: form(lambda i: f"{LIST}.{i}.Recipient=u{i}%40example.com", n),
        lambda n: form(lambda i: f"{LIST}.{i}.BounceType=Nope", n),
        lambda n: form(lambda i: f"{LIST}.1.Recipient=x{i}", n),
        lambda n: form(lambda i: f"{LIST}.{'0' * 100}{i}.Recipient=x", n),
        lambda n: form(lambda i: f"{EXTENSIONS}.{i}.Name=X", n),
        lambda n: form(lambda i: f"a{i}.b.c.d.e.f.g.h=x", n),
        lambda n: form(lambda i: f"{LIST}.{i}.a.b.c.d.e=x", n),
        lambda n: "MessageDsn.ReportingMta=x&MessageDsn.ArrivalDate=" + filled("9", n),
        lambda n: "MessageDsn.ReportingMta=x&MessageDsn.ArrivalDate=" + filled("+", n),
    ],
    ids=["amp", "equal", "blank values", "plus", "escaped", "percent", "utf8", "nul", "dots",
         "only dots", "one value", "line ends", "list", "enum", "twice", "zeros", "deep lists",
         "unknown names", "unknown parts", "digits", "blanks"],
)  # fmt: skip
def test_a_form(body):
    work = refusable(lambda size: read("SendBounce", body(size)))
    # Up to the most parameters that are allowed; behind that they are not looked at.
    assert_linear(work, SIZE // 8)
    assert steps(lambda: work(SIZE)) < MOST_STEPS


def test_names_are_not_cut_before_their_length_is_known():
    work = refusable(lambda name: decode(operation_model("SendBounce"), [(name, "x")]))
    short, long = "a." * 1000, "a." * SIZE
    assert steps(lambda: work(long)) == steps(lambda: work(short))


@pytest.mark.parametrize("unit", ["a=b&", "%41=&", "+=+&", "X-Amz-Date=1&"])
def test_a_query_string(unit):
    def work(size):
        return parse_form(filled(unit, size).encode() + b"a=b", MAX_QUERY_PARAMETERS)

    assert_linear(refusable(work), 8000)
    assert steps(lambda: refusable(work)(SIZE)) < 1000


# --- signatures --------------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCOPE = "test/20260301/us-east-1/ses/aws4_request"


def checked(headers, query=()):
    request = SignedRequest("GET", "/", query, {"host": "x", **headers}, b"")
    verify(request, read_credentials(request), "secret", "us-east-1", NOW)


def authorization(signed="host;x-amz-date", credential=SCOPE, signature="0" * 64, more=""):
    return {
        "x-amz-date": "20260301T120000Z",
        "authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, "
        f"Signature={signature}{more}",
    }


@pytest.mark.parametrize(
    "headers",
    [
        lambda n: authorization(more=filled(",", n)),
        lambda n: authorization(more=filled(",a=b", n)),
        lambda n: authorization(signed=filled("a;", n)),
        lambda n: authorization(signed=filled("host;", n)),
        lambda n: authorization(signed=";".join(f"x-{i}" for i in range(n // 8))),
        lambda n: authorization(credential=filled("/", n)),
        lambda n: authorization(credential=filled("a", n) + "/20260301/us-east-1/ses/aws4_request"),
        lambda n: authorization(credential=f"test/20260301/{filled('a', n)}/ses/aws4_request"),
        lambda n: authorization(signature=filled("0", n)),
        lambda n: authorization() | {"x-amz-security-token": filled("a", n)},
        lambda n: authorization() | {"x-amz-date": filled("9", n)},
        lambda n: authorization("host;x-amz-a;x-amz-date") | {"x-amz-a": filled(" ", n)},
        lambda n: authorization("host;x-amz-a;x-amz-date") | {"x-amz-a": filled("a  ", n)},
        lambda n: {f"x-amz-{i}": "a" for i in range(n // 8)} | authorization(),
        lambda n: {"authorization": filled(" ", n)},
        lambda n: {"authorization": "AWS4-HMAC-SHA256 " + filled(" =", n)},
    ],
)
def test_a_signature(headers):
    """The edge lets through 64 KiB of header fields."""
    assert_linear(refusable(lambda size: checked(headers(size))), 64 * 1024)


def test_a_header_that_is_signed_many_times_is_not_written_out_so_often():
    def work(size):
        checked({"host": "x" * 16_000, **authorization(signed=filled("host;", size) + "host")})

    with pytest.raises(SesError, match="names a header twice"):
        work(16_000)


def test_a_presigned_query():
    signed = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": SCOPE,
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Signature": "0" * 64,
        "X-Amz-Date": "20260301T120000Z",
    }

    def work(size):
        checked({}, [*signed.items(), *((f"n{i % 7}", "ä/") for i in range(size))])

    assert_linear(refusable(work), 2000)


# --- policies ----------------------------------------------------------------------------------

CONTEXT = {
    "aws:useragent": ["ab/ " * 512],
    "ses:fromaddress": ["ann@example.com"],
    "aws:sourceip": ["192.0.2.1"],
    "aws:currenttime": ["2026-03-01T12:00:00Z"],
    "aws:epochtime": ["1772366400"],
}


def decided(values, operator, key, statements=1):
    """Whatever a policy of four kilobytes asks for."""
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "ses:*",
        "Resource": "*",
        "Condition": {operator: {key: values}},
    }
    document = json.dumps(
        {"Version": "2012-10-17", "Statement": [statement] * statements}, separators=(",", ":")
    )
    policy = parse_policy(document, PolicyKind.IDENTITY)
    requester = Requester("1" * 12, f"arn:aws:iam::{'1' * 12}:user/ann")
    arn = f"arn:aws:ses:us-east-1:{'1' * 12}:identity/example.com"
    return evaluate([policy], AccessRequest(requester, "ses:SendBounce", arn, CONTEXT))


@pytest.mark.parametrize(
    ("operator", "key", "values"),
    [
        ("StringLike", "aws:UserAgent", lambda n: [filled("*a", n) + "zz"]),
        ("StringLike", "aws:UserAgent", lambda n: [filled("*", n) + "z"]),
        ("StringLike", "aws:UserAgent", lambda n: [filled("?", n)]),
        ("StringLike", "aws:UserAgent", lambda n: ["*" + filled("a?", n) + "*z"]),
        ("StringLike", "aws:UserAgent", lambda n: ["*?a*?b*z"] * (n // 11)),
        ("StringLike", "aws:UserAgent", lambda n: ["*?/?*z*"] * (n // 10)),
        ("StringLike", "aws:UserAgent", lambda n: [filled("${aws:UserAgent}", n)]),
        ("StringNotLike", "aws:UserAgent", lambda n: [filled("${*}", n)]),
        ("StringEquals", "aws:UserAgent", lambda n: [filled("${aws:UserAgent}", n)]),
        ("StringEqualsIgnoreCase", "aws:UserAgent", lambda n: ["x"] * (n // 4)),
        ("ForAllValues:StringLike", "ses:FromAddress", lambda n: ["*@*"] * (n // 6)),
        ("ArnLike", "aws:UserAgent", lambda n: ["*:*:*:*:*:" + filled(":", n)]),
        ("NumericEquals", "aws:EpochTime", lambda n: ["1e999"] * (n // 8)),
        ("NumericLessThan", "aws:EpochTime", lambda n: ["1" * 30 + "e-999"] * (n // 38)),
        ("DateEquals", "aws:CurrentTime", lambda n: ["2026-03-01"] * (n // 13)),
        ("IpAddress", "aws:SourceIp", lambda n: ["192.0.2.0/24"] * (n // 15)),
    ],
)  # fmt: skip
def test_a_policy(operator, key, values):
    work = refusable(lambda size: decided(values(size), operator, key))
    work(3600)  # what is cached is for both
    assert_linear(work, 3600)
    assert steps(lambda: work(3600)) < 100_000


def test_many_statements():
    assert_linear(lambda size: decided(["*a*b*"], "StringLike", "aws:UserAgent", size), 24)


@pytest.mark.parametrize(
    "document",
    [
        lambda n: filled("[", n),
        lambda n: filled('{"a":', n),
        lambda n: '{"Statement":[' + filled("1,", n) + "1]}",
        lambda n: '{"Statement":"' + filled("\\u0000", n) + '"}',
        lambda n: '{"Statement":"' + filled('\\"', n) + '"}',
        lambda n: '{"Statement":' + filled("9", n) + "}",
        lambda n: '{"Statement":1e' + filled("9", n) + "}",
        lambda n: filled(" ", n),
        lambda n: '{"Statement":[' + ",".join(f'{{"Sid":"s{i}"}}' for i in range(n // 16)) + "]}",
    ],
)
def test_a_policy_document(document):
    work = refusable(lambda text: parse_policy(text, PolicyKind.IDENTITY))
    half, whole, large = map(document, (2000, 4000, SIZE))
    assert steps(lambda: work(whole)) <= LINEAR * steps(lambda: work(half)) + 100
    assert steps(lambda: work(large)) < 100


# --- lists -------------------------------------------------------------------------------------


def test_an_order_of_rules():
    existing = [f"r{number}" for number in range(200)]

    def work(size):
        check_order(existing, [f"r{number}" for number in range(size)])

    assert_linear(refusable(work), 10_000)
    assert_linear(refusable(lambda size: check_order([], ["a"] * size)), 10_000)


@pytest.mark.parametrize("part", ["recipients", "actions"])
def test_a_rule(part):
    content = {"recipients": "a@example.com", "actions": StopAction()}[part]

    def work(size):
        check_rule(Rule("r", **{part: (content,) * size}))

    assert steps(lambda: refusable(work)(10_000)) < 50


def test_a_block_of_addresses():
    for text in (":" * SIZE + "x", "1." * SIZE, ":" * 30 + "x", "0" * SIZE + "/1"):
        assert steps(lambda text=text: refusable(parse_cidr)(text)) < 4000


@pytest.mark.parametrize(
    "entry",
    [
        lambda i: {"Recipient": f"u{i}@example.com", "BounceType": "DoesNotExist"},
        lambda _: {"Recipient": "u@example.com", "BounceType": "DoesNotExist"},
        lambda i: {
            "Recipient": f"u{i}@example.com",
            "RecipientArn": "arn:aws:ses:us-east-1:000000000000:identity/example.com",
            "RecipientDsnFields": {
                "Action": "failed",
                "Status": "5.1.1",
                "DiagnosticCode": "550 5.1.1 " + "x " * 400,
                "FinalRecipient": f"v{i}@example.com",
            },
        },
    ],
)
def test_bounced_recipients(entry):
    def work(size):
        return parse_request(
            {
                "OriginalMessageId": "x",
                "BounceSender": "a@example.com",
                "BouncedRecipientInfoList": [entry(number) for number in range(size)],
            }
        )

    work(2000)  # addresses are remembered
    assert_linear(work, 2000)


def test_recipients_are_found_in_the_envelope():
    def work(size):
        addresses = [Address(f"u{number}", "example.com") for number in range(size)]
        envelope = SimpleNamespace(recipients=[Recipient(address) for address in addresses])
        entries = entries_of(SimpleNamespace(envelope=envelope))
        return [entry_of(entries, Use("", address, None)) for address in addresses]

    work(2000)
    assert_linear(work, 2000)


# --- languages and errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        lambda n: filled("a-", n),
        lambda n: filled("de-", n),
        lambda n: filled(",", n),
        lambda n: filled("-", n),
        lambda n: filled("xx;q=0.1,", n),
        lambda n: "de;" + filled(" ", n) + "q=1",
        lambda n: "de;q=" + filled("1", n),
        lambda n: filled(";", n),
        lambda n: ",".join(f"x{i}" for i in range(n // 5)),
        lambda n: filled("İ", n),
    ],
)
def test_a_wish_for_a_language(wanted):
    languages, text = builtin_texts(), wanted(120_000)
    assert steps(lambda: choose_texts(languages, text)) < 2000


def test_an_error():
    def work(size):
        encode_error(SesError("X", "ä\0<" * size, {"Name": "&" * size}), "id")

    assert steps(lambda: work(SIZE)) <= LINEAR * steps(lambda: work(2000))
    assert len(encode_error(SesError("X", "<" * SIZE, {"Name": "&" * SIZE}), "id")) < 10_000
    assert len(validation_error(["x" * 100] * 20_000).message) < 5000
