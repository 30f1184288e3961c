"""DANE and required TLS: which certificates a server may show."""

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization

from sendback.delivery.dane import DaneError, TlsaRecord, check_chain
from tests.partners.authority import Authority
from tests.partners.awkward import Awkward
from tests.partners.dns_server import DnsServer
from tests.partners.postfix import free_port
from tests.partners.steps import assert_few_lines

ZONE = """\
a.example. 300 IN MX 0 mx.a.example.
mx.a.example. 300 IN A 127.0.0.2
alias.a.example. 300 IN MX 0 mx.alias.a.example.
mx.alias.a.example. 300 IN CNAME mx.a.example.
b.example. 300 IN MX 0 mx.b.example.
mx.b.example. 300 IN A 127.0.0.2
"""


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def dns():
    with DnsServer(ZONE, secure=("a.example",)) as server:
        yield server


@pytest.fixture
def bounced(running, dns, authority):
    """Bounces to ann@DOMAIN, whose server shows the certificate; answers the attempt and it."""

    def start(issued, *tlsa, domain="a.example", at="", **flags):
        port = free_port()
        dns.put(f"_{port}._tcp.{at or 'mx.' + domain}", "TLSA", *tlsa)
        server = running(
            send_bounce_rate="0", outbound="mx", dns=dns.address, mx_port=str(port),
            private_targets="true", tls_ca_file=str(authority.file), delivery_timeout="2s", **flags,
        )  # fmt: skip
        server.ses.verify_domain_identity(Domain="example.com")
        tls = issued.context() if issued else None
        with Awkward(host="127.0.0.2", port=port, tls=tls) as peer:
            found = server.bounce(server.send_bounce(sender=f"ann@{domain}"))
        (attempt,) = server.attempts(found.message_id)
        assert bool(peer.contents) is (found.state == "delivered")
        return found.state.value, attempt.tls_policy, attempt.reply

    return start


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("usage", [2, 3])
def test_the_right_certificate(bounced, authority, usage, selector, matching):
    issued = authority.issue("mx.a.example")
    found = bounced(issued, issued.tlsa(usage, selector, matching))
    assert found[:2] == ("delivered", "dane")


def test_a_server_by_another_name(bounced, authority, dns):
    """RFC 7672 §2.2.2: the records are those of the name that it is an alias of."""
    issued = authority.issue("mx.a.example")
    found = bounced(issued, issued.tlsa(2, 1, 1), domain="alias.a.example", at="mx.a.example")
    assert found[:2] == ("delivered", "dane")


def test_a_server_by_another_name_with_records_of_its_own(bounced, authority):
    issued = authority.issue("mx.alias.a.example")
    assert bounced(issued, issued.tlsa(2, 1, 1), domain="alias.a.example")[:2] == (
        "delivered", "dane",
    )  # fmt: skip


@pytest.mark.parametrize("usage", [2, 3])
def test_a_wrong_certificate_is_refused(bounced, authority, tmp_path, usage):
    shown = Authority(tmp_path, "Other").issue("mx.a.example")
    state, policy, reply = bounced(shown, authority.issue("mx.a.example").tlsa(usage, 1, 1))
    assert (state, policy) == ("queued", "dane")
    assert "DANE: no TLSA record matches the certificate" in reply


def test_one_of_several_records_is_enough(bounced, authority):
    issued, other = authority.issue("mx.a.example"), authority.issue("mx.a.example")
    found = bounced(issued, other.tlsa(3, 1, 1), issued.tlsa(3, 1, 1), other.tlsa(3, 0, 2))
    assert found[:2] == ("delivered", "dane")


def test_with_dane_ee_neither_name_nor_date_counts(bounced, authority):
    issued = authority.issue("elsewhere.example", days=-5)
    assert bounced(issued, issued.tlsa(3, 1, 1))[0] == "delivered"


@pytest.mark.parametrize("name", ["mx.a.example", "a.example"])
def test_with_dane_ta_the_servers_name_or_the_domains_will_do(bounced, authority, name):
    """RFC 7672 §3.2.2."""
    issued = authority.issue(name)
    assert bounced(issued, issued.tlsa(2, 0, 1))[:2] == ("delivered", "dane")


@pytest.mark.parametrize("names", [("elsewhere.example",), ("mx.a.example",)])
def test_with_dane_ta_both_count(bounced, authority, names):
    issued = authority.issue(*names, days=-5 if names == ("mx.a.example",) else 30)
    state, _, reply = bounced(issued, issued.tlsa(2, 0, 1))
    assert state == "queued"
    assert "the certificate is not valid for mx.a.example or a.example" in reply


def test_unusable_records_still_ask_for_tls(bounced, authority, tmp_path):
    issued = Authority(tmp_path, "Other").issue("elsewhere.example")
    found = bounced(issued, issued.tlsa(1, 1, 1), f"3 9 1 {64 * chr(48)}", "0 0 9 00")
    assert found[:2] == ("delivered", "encrypted")


def test_unusable_records_ask_for_no_less_than_the_setting(bounced, authority):
    issued = authority.issue("elsewhere.example")
    found = bounced(issued, issued.tlsa(1, 1, 1), delivery_tls="a.example=verified")
    assert found[:2] == ("queued", "verified")


@pytest.mark.parametrize("record", ["dane", "unusable"])
def test_without_starttls_nothing_is_delivered(bounced, authority, record):
    issued = authority.issue("mx.a.example")
    tlsa = issued.tlsa(3 if record == "dane" else 1, 1, 1)
    state, _, reply = bounced(None, tlsa)
    assert state == "queued"
    assert "does not offer STARTTLS" in reply


def test_records_that_dnssec_does_not_prove_mean_nothing(bounced, authority):
    issued = authority.issue("mx.b.example")
    found = bounced(
        issued, authority.issue("mx.b.example").tlsa(3, 1, 1), domain="b.example", mta_sts="false"
    )
    assert found[:2] == ("delivered", "opportunistic")


def test_nor_do_they_from_a_resolver_that_is_not_trusted(bounced, authority):
    issued = authority.issue("mx.a.example")
    other = authority.issue("mx.a.example").tlsa(3, 1, 1)
    assert bounced(issued, other, dnssec="false")[:2] == ("delivered", "opportunistic")


def test_records_that_cannot_be_found_out_stop_delivery(bounced, authority, dns, monkeypatch):
    issued = authority.issue("mx.a.example")
    real = dns.answer

    def fail(data, **options):
        return data[:2] + b"\xff" * 40 if b"_tcp" in data else real(data, **options)

    monkeypatch.setattr(dns, "answer", fail)
    state, _, reply = bounced(issued)
    assert state == "queued"
    assert reply.startswith("4.4.3 DNS: _")


def test_addresses_of_one_kind_that_cannot_be_found_out_do_not_turn_dane_off(
    bounced, authority, dns, monkeypatch
):
    issued, real = authority.issue("mx.a.example"), dns.answer

    def fail(data, **options):
        is_aaaa = b"\x02mx\x01a\x07example\x00\x00\x1c" in data
        return data[:2] + b"\xff" * 40 if is_aaaa else real(data, **options)

    monkeypatch.setattr(dns, "answer", fail)
    found = bounced(issued, authority.issue("mx.a.example").tlsa(3, 1, 1), dns_budget="2s")
    assert found[:2] == ("queued", "dane")


@pytest.mark.parametrize(
    ("names", "level", "state"),
    [
        (("mx.b.example",), "verified", "delivered"),
        (("elsewhere.example",), "verified", "queued"),
        (("elsewhere.example",), "encrypted", "delivered"),
        ((), "encrypted", "queued"),
        ((), "opportunistic", "delivered"),
    ],
)
def test_tls_by_setting(bounced, authority, names, level, state):
    issued = authority.issue(*names) if names else None
    found = bounced(issued, domain="b.example", delivery_tls=f"b.example={level}")
    assert found[:2] == (state, level)


def test_chains_from_outside_are_only_judged():
    record = TlsaRecord(3, 1, 1, b"x" * 32)
    for chain in ([], [b""], [b"\x30\x03\x02\x01\x00"], [b"\xff" * 100]):
        with pytest.raises(DaneError):
            check_chain([record], chain, ["mx.a.example"])


def test_many_records_and_certificates_are_compared_once_each(authority):
    """A thousand records, of which the last one fits; a chain longer than any real one."""
    issued = authority.issue("mx.a.example")
    certificate = issued.certificate.public_bytes(serialization.Encoding.DER)
    digest = hashlib.sha256(certificate).digest()
    others = [TlsaRecord(3, 0, 1, number.to_bytes(32, "big")) for number in range(1000)]
    assert_few_lines(
        lambda records: check_chain(
            [*records, TlsaRecord(3, 0, 1, digest)], [certificate] * 20, ["mx.a.example"]
        ),
        lambda count: others[:count],
        1000,
        24,
    )
    with pytest.raises(DaneError, match="21 certificates"):
        check_chain(others, [certificate] * 21, ["mx.a.example"])
