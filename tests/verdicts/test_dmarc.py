"""SPF, DKIM and DMARC against a real DNS server, with mail that another implementation signed."""

import asyncio
import base64
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from sendback.mail.address import parse_address
from sendback.mail.dkim import SigningKey
from sendback.mail.dkim import sign as sign_mail
from sendback.mail.envelope import Client, ReversePath
from sendback.net.dns_answers import DnsFailedError
from sendback.net.resolver import Resolver
from sendback.receipt.verdicts import Verdict
from sendback.verdicts.checks import MailChecks
from sendback.verdicts.processes import VerdictProcesses
from tests.conftest import need
from tests.partners.dns_server import DnsServer
from tests.verdicts.mails import mail_to_check

SIGNER = Path(__file__).parents[1] / "partners/dkim_signer.pl"

MAIL = (
    b"From: Ann <ann@%s>\r\n"
    b"To: bob@example.com\r\n"
    b"Subject: Lunch\r\n"
    b"Date: Sun, 01 Mar 2026 12:00:00 +0000\r\n"
    b"Message-ID: <lunch@sender.example>\r\n"
    b"\r\n"
    b"Are you free on Friday?\r\n"
)

ZONE = """
sender.example. 300 IN TXT "v=spf1 ip4:192.0.2.0/24 include:_spf.sender.example -all"
_spf.sender.example. 300 IN TXT "v=spf1 a:mail.sender.example mx ~all"
mail.sender.example. 300 IN A 198.51.100.7
sender.example. 300 IN MX 10 mail.sender.example.
soft.example. 300 IN TXT "v=spf1 ~all"
neutral.example. 300 IN TXT "v=spf1 ?all"
broken.example. 300 IN TXT "v=spf1 ip4:nonsense -all"
loop.example. 300 IN TXT "v=spf1 include:loop.example -all"
twice.example. 300 IN TXT "v=spf1 -all"
twice.example. 300 IN TXT "v=spf1 +all"
asks.example. 300 IN TXT "v=spf1 include:servfail.example -all"
nothing.example. 300 IN A 192.0.2.1
_dmarc.sender.example. 300 IN TXT "v=DMARC1; p=reject; sp=quarantine"
_dmarc.twice.example. 300 IN TXT "v=DMARC1; p=none"
_dmarc.twice.example. 300 IN TXT "v=DMARC1; p=reject"
s1._domainkey.sender.example. 300 IN TXT {key}
revoked._domainkey.sender.example. 300 IN TXT "v=DKIM1; p="
nonsense._domainkey.sender.example. 300 IN TXT "v=DKIM1; p=nonsense"
other._domainkey.sender.example. 300 IN TXT {other}
s1._domainkey.servfail.example. 300 IN TXT "unused"
"""


def _record(key):
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = "v=DKIM1; k=rsa; p=" + base64.b64encode(public).decode()
    return " ".join(f'"{text[start : start + 200]}"' for start in range(0, len(text), 200))


@pytest.fixture(scope="module")
def keys():
    return [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]


@pytest.fixture(scope="module")
def dns(keys):
    with DnsServer(ZONE.format(key=_record(keys[0]), other=_record(keys[1]))) as server:
        yield server


@pytest.fixture(scope="module")
def checks(dns):
    """The checks with a time for look-ups; processes are shared by the tests of this module."""
    with asyncio.Runner() as runner:
        made = {}

        def run(mail, seconds):
            if seconds not in made:
                servers = [("127.0.0.1", dns.port)]
                made[seconds] = MailChecks(
                    VerdictProcesses(servers, processes=1, seconds=seconds), None, None
                )
            return runner.run(made[seconds].authenticate(mail, scan=True))

        yield run
        for each in made.values():
            runner.run(each.close())


@pytest.fixture
def judge(checks):
    def run(content, *, sender="ann@sender.example", ip="192.0.2.7", seconds=3.0, helo="mx.x"):
        path = ReversePath(parse_address(sender) if sender else None)
        return checks(mail_to_check(content, Client(ip, helo), path), seconds)

    return run


@pytest.fixture
def sign(keys, tmp_path):
    """By Perl's Mail::DKIM."""
    need(
        "Mail::DKIM",
        available=subprocess.run(
            ["perl", "-MMail::DKIM", "-e", "1"], capture_output=True
        ).returncode
        == 0,
    )
    file = tmp_path / "key.pem"
    file.write_bytes(
        keys[0].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )

    def run(content, domain="sender.example", selector="s1"):
        command = ["perl", str(SIGNER), domain, selector, str(file)]
        return subprocess.run(command, input=content, capture_output=True, check=True).stdout

    return run


def status(verdicts, name):
    return verdicts.statuses(scanned=True)[f"{name}Verdict"]


@pytest.mark.parametrize(
    ("sender", "ip", "result", "verdict"),
    [
        ("ann@sender.example", "192.0.2.7", "pass", Verdict.PASS),
        ("ann@sender.example", "198.51.100.7", "pass", Verdict.PASS),
        ("ann@sender.example", "203.0.113.9", "fail", Verdict.FAIL),
        ("ann@sender.example", "IPv6:2001:db8::1", "fail", Verdict.FAIL),
        ("ann@soft.example", "192.0.2.7", "softfail", Verdict.GRAY),
        ("ann@neutral.example", "192.0.2.7", "neutral", Verdict.GRAY),
        ("ann@nothing.example", "192.0.2.7", "none", Verdict.GRAY),
        ("ann@absent.example", "192.0.2.7", "none", Verdict.GRAY),
        ("ann@broken.example", "192.0.2.7", "permerror", Verdict.PROCESSING_FAILED),
        ("ann@loop.example", "192.0.2.7", "permerror", Verdict.PROCESSING_FAILED),
        ("ann@twice.example", "192.0.2.7", "permerror", Verdict.PROCESSING_FAILED),
        ("ann@servfail.example", "192.0.2.7", "temperror", Verdict.PROCESSING_FAILED),
        ("ann@asks.example", "192.0.2.7", "temperror", Verdict.PROCESSING_FAILED),
        ("ann@garbage.example", "192.0.2.7", "temperror", Verdict.PROCESSING_FAILED),
    ],
)
def test_spf(judge, sender, ip, result, verdict):
    found = judge(MAIL % b"sender.example", sender=sender, ip=ip, seconds=2.5)
    assert found.spf.result == result
    assert status(found, "spf") is verdict


def test_spf_of_a_null_reverse_path_is_that_of_the_helo_name(judge):
    found = judge(MAIL % b"sender.example", sender="", ip="192.0.2.7", helo="sender.example")
    assert (found.spf.result, found.spf.domain) == ("pass", "sender.example")


def test_dkim_passes(judge, sign):
    found = judge(sign(MAIL % b"sender.example"))
    (signature,) = found.dkim
    assert (signature.result, signature.domain, signature.selector) == (
        "pass",
        "sender.example",
        "s1",
    )
    assert status(found, "dkim") is Verdict.PASS


def test_dkim_by_ed25519(judge, dns):
    """RFC 8463: receivers are to know it."""
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    text = "v=DKIM1; k=ed25519; p=" + base64.b64encode(public).decode()
    dns.put("ed._domainkey.sender.example", "TXT", f'"{text}"')
    signing = SigningKey("sender.example", "ed", "ed25519-sha256", key.sign)
    mail = MAIL % b"sender.example"
    signed = sign_mail(mail, [signing], datetime(2026, 3, 1, tzinfo=UTC)) + mail
    assert [s.result for s in judge(signed).dkim] == ["pass"]
    assert status(judge(signed.replace(b"Friday", b"Monday")), "dkim") is Verdict.FAIL


def test_dkim_of_a_changed_mail_fails(judge, sign):
    signed = sign(MAIL % b"sender.example")
    assert status(judge(signed.replace(b"Friday", b"Monday")), "dkim") is Verdict.FAIL
    assert status(judge(signed.replace(b"Subject: Lunch", b"Subject: Dinner")), "dkim") is (
        Verdict.FAIL
    )


def test_dkim_without_a_signature(judge):
    assert status(judge(MAIL % b"sender.example"), "dkim") is Verdict.GRAY


@pytest.mark.parametrize("selector", ["absent", "revoked", "nonsense", "other"])
def test_dkim_with_a_key_that_does_not_fit(judge, sign, selector):
    found = judge(sign(MAIL % b"sender.example", selector=selector))
    assert status(found, "dkim") is Verdict.FAIL


def test_dkim_whose_key_cannot_be_looked_up(judge, sign):
    found = judge(sign(MAIL % b"x.example", domain="s.example", selector="servfail"))
    assert status(found, "dkim") is Verdict.PROCESSING_FAILED


@pytest.mark.parametrize(
    "field",
    [
        b"DKIM-Signature: nonsense",
        b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.example; s=s1; h=from; bh=x; b=y",
        b"DKIM-Signature: v=1; a=rsa-md5; c=x/y; d=\xff\xfe; s=\x00; h=; bh=; b=",
        b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.example; s=s1; h="
        + b"from:" * 5000
        + b"; b=",
    ],
)
def test_dkim_that_is_nonsense(judge, field):
    found = judge(field + b"\r\n" + MAIL % b"sender.example")
    assert status(found, "dkim") is Verdict.FAIL


def test_the_best_of_several_signatures_counts(judge, sign):
    signed = sign(MAIL % b"sender.example")
    bad = b"DKIM-Signature: v=1; a=rsa-sha256; d=x; s=y; h=from; bh=x; b=y\r\n"
    assert status(judge(bad + signed), "dkim") is Verdict.PASS


def test_five_signatures_are_looked_at(judge, dns):
    field = b"DKIM-Signature: v=1; a=rsa-sha256; d=n.example; s=s%d; h=from; bh=YQ==; b=YQ==\r\n"
    mail = b"".join(field % number for number in range(50)) + MAIL % b"sender.example"
    assert len(judge(mail).dkim) == 5


def test_dmarc_passes_by_spf_or_by_dkim(judge, sign):
    assert status(judge(MAIL % b"sender.example"), "dmarc") is Verdict.PASS
    signed = sign(MAIL % b"sender.example")
    found = judge(signed, sender="x@soft.example", ip="203.0.113.9")
    assert status(found, "spf") is Verdict.GRAY
    assert status(found, "dmarc") is Verdict.PASS


@pytest.mark.parametrize(
    ("author", "verdict", "policy"),
    [
        (b"sender.example", Verdict.FAIL, "reject"),
        (b"sub.sender.example", Verdict.FAIL, "quarantine"),
        (b"nothing.example", Verdict.GRAY, None),
        (b"twice.example", Verdict.GRAY, None),
        (b"servfail.example", Verdict.PROCESSING_FAILED, None),
    ],
)
def test_dmarc_of_what_somebody_else_sends(judge, author, verdict, policy):
    found = judge(MAIL % author, sender="x@soft.example", ip="203.0.113.9")
    assert status(found, "dmarc") is verdict
    assert found.dmarc.policy == policy


def test_two_authors_pass_nothing(judge):
    two = (MAIL % b"sender.example").replace(b"To:", b"From: boss@bank.example\r\nTo:")
    assert status(judge(two), "dmarc") is Verdict.FAIL


def test_no_author_is_no_domain_to_ask(judge):
    assert status(judge(b"Subject: x\r\n\r\nx\r\n"), "dmarc") is Verdict.GRAY


def test_a_silent_server_costs_no_more_than_the_budget(judge):
    import time

    started = time.monotonic()
    found = judge(MAIL % b"silent.example", sender="x@silent.example", seconds=1.0)
    assert time.monotonic() - started < 5
    assert status(found, "spf") is Verdict.PROCESSING_FAILED
    assert status(found, "dmarc") is Verdict.PROCESSING_FAILED


def test_what_was_asked_is_not_asked_again(dns):
    resolver = Resolver([("127.0.0.1", dns.port)])
    before = len(dns.questions)
    for _ in range(3):
        assert resolver.texts("soft.example", 2.0) == [b"v=spf1 ~all"]
    assert len(dns.questions) == before + 1
    for _ in range(3):
        with pytest.raises(DnsFailedError):
            resolver.texts("servfail.example", 2.0)
    asked = set(dns.questions[before + 1 :])
    assert asked == {("servfail.example.", "TXT")}
    assert len(dns.questions) < before + 8


def test_without_look_ups_the_verdicts_are_disabled():
    mail = mail_to_check(MAIL % b"sender.example", Client("192.0.2.7", "x"), ReversePath(None))
    found = asyncio.run(MailChecks(None, None, None).authenticate(mail, scan=True))
    assert set(found.statuses(scanned=True).values()) == {Verdict.DISABLED}
