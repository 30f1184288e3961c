"""MTA-STS: reading policies, fetching them, and never forgetting one too early."""

import asyncio
import contextlib
from datetime import timedelta

import pytest

from sendback.delivery.mta_sts import (
    MAX_POLICY_OCTETS,
    StsPolicies,
    StsPolicy,
    StsPolicyError,
    parse_policy,
    policy_id,
)
from sendback.delivery.mx import MxRouter, MxSettings
from sendback.delivery.routes import UnroutableError
from sendback.delivery.tls_policies import trusting
from sendback.net.async_resolver import AsyncResolver
from sendback.net.connector import Connector
from sendback.store.engine.store import Store, prepare_schema
from tests.partners.authority import Authority
from tests.partners.dns_server import DnsServer
from tests.partners.https_server import HttpsServer
from tests.partners.postgresql import database_url
from tests.partners.steps import assert_few_lines

POLICY = """\
version: STSv1\r
mode: enforce\r
mx: mx.a.example\r
mx: *.mail.example\r
max_age: 86400\r
"""


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([b"v=STSv1; id=20260301T120000;"], "20260301T120000"),
        ([b"v=STSv1;id=a"], "a"),
        ([b"v=STSv1; x=y; id = b"], "b"),
        ([b"v=spf1 -all", b"v=STSv1; id=a;"], "a"),
        ([], None),
        ([b"v=STSv1; id=a", b"v=STSv1; id=b"], None),
        ([b"v=STSv2; id=a"], None),
        ([b"v=STSv1x; id=a"], None),
        ([b"v=STSv1; id="], None),
        ([b"v=STSv1; id=a-b"], None),
        ([b"v=STSv1; id=" + b"a" * 33], None),
        ([b"v=STSv1; id=\xff"], None),
    ],
)
def test_the_record(texts, found):
    assert policy_id(texts) == found


def test_a_policy():
    found = parse_policy(POLICY)
    servers = ("mx.a.example", "*.mail.example")
    assert found == StsPolicy("enforce", servers, timedelta(days=1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("version: STSv1", "version: STSv2"), "version"),
        (("version: STSv1", "x: y"), "version"),
        (("mode: enforce", "mode: maybe"), "mode"),
        (("mode: enforce", ""), "mode"),
        (("max_age: 86400", "max_age: soon"), "max_age"),
        (("max_age: 86400", "max_age: -1"), "max_age"),
        (("mx: ", "nx: "), "0 servers"),
        (("mx: mx.a.example", "mx: a.example\n" * 201), "202 servers"),
    ],
)
def test_what_is_no_policy(change, reason):
    with pytest.raises(StsPolicyError, match=reason):
        parse_policy(POLICY.replace(*change))


def test_the_first_of_several_fields_counts_and_ages_end():
    found = parse_policy(POLICY.replace("86400", "9999999999") + "mode: none\n")
    assert (found.mode, found.max_age) == ("enforce", timedelta(seconds=31_557_600))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("mx.a.example", True),
        ("MX.A.Example.", True),
        ("b.mail.example", True),
        ("c.b.mail.example", False),
        ("mail.example", False),
        ("xmx.a.example", False),
        ("a.example", False),
    ],
)
def test_servers_that_a_policy_names(host, allowed):
    assert parse_policy(POLICY).allows(host) is allowed


# --- fetching -------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def policy_server(authority):
    with HttpsServer(authority.issue("mta-sts.a.example").context()) as server:
        server.body = POLICY.encode()
        yield server


@pytest.fixture
def dns():
    zone = "a.example. 300 IN MX 0 mx.a.example.\nmx.a.example. 300 IN A 127.0.0.2\n"
    with DnsServer(zone) as server:
        server.put("mta-sts.a.example", "A", "127.0.0.1")
        server.put("_mta-sts.a.example", "TXT", '"v=STSv1; id=1"')
        yield server


class Asking:
    """A store that stays, and policies that are made anew, as after a restart."""

    def __init__(self, tmp_path, authority, dns, policy_server, clock, *, allow_private=True):
        self._url = database_url(tmp_path)
        self._folder = tmp_path
        self._parts = (authority, dns, policy_server, clock)
        self._allow_private = allow_private
        prepare_schema(self._url)

    def __call__(self, *, locate=False):
        async def main():
            authority, dns, policy_server, clock = self._parts
            store = Store(self._url, self._folder)
            resolver = AsyncResolver([("127.0.0.1", dns.port)], trusted=False, seconds=1.0)
            trust = trusting(authority.file)
            connector = Connector(
                allow_private=self._allow_private,
                trust=trust,
                lookup=resolver.addresses,
                max_response=MAX_POLICY_OCTETS,
            )
            policies = StsPolicies(resolver, store, clock, connector, policy_server.port)
            router = MxRouter(resolver, policies, MxSettings(25, frozenset(), True, {}), trust)
            try:
                route = await router.route("a.example")
                if locate:
                    return (await router.locate(route, route.hops[0])).tls.name
                return route.sts
            finally:
                await router.close()
                store.close()

        return asyncio.run(main())


@pytest.fixture
def asking(tmp_path, authority, dns, policy_server, clock):
    return Asking(tmp_path, authority, dns, policy_server, clock)


HOSTILE = {
    "lines": b"\n",
    "fields": b"a:b\n",
    "servers": b"mx: a\n",
    "colons": b":",
    "blanks": b" ",
    "other line ends": "\u2028mx:a".encode(),
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_a_large_policy_is_read_in_linear_steps(shape):
    def read(text):
        with contextlib.suppress(StsPolicyError):
            parse_policy(text)

    repeated = HOSTILE[shape].decode()
    assert_few_lines(read, lambda n: POLICY + repeated * (n // len(repeated)), MAX_POLICY_OCTETS, 8)


@pytest.mark.parametrize("value", [b"v=STSv1" + b" " * 60_000, b"v=STSv1;" * 8_000, b";" * 60_000])
def test_a_large_record_is_read(value):
    assert policy_id([value]) is None


def test_a_policy_with_a_nul_is_none():
    """It would be kept as text, which PostgreSQL refuses."""
    with pytest.raises(StsPolicyError, match="NUL"):
        parse_policy(POLICY + "x: \0\n")


def test_a_policy_is_fetched_once_and_kept(asking, policy_server):
    assert asking() == parse_policy(POLICY)
    host = f"mta-sts.a.example:{policy_server.port}"
    assert policy_server.asked == [(host, "/.well-known/mta-sts.txt")]
    assert asking() == parse_policy(POLICY)
    assert len(policy_server.asked) == 1


def test_a_policy_is_fetched_again_well_before_it_ends(asking, policy_server, clock):
    """So that nobody who can hold DNS back at the end of its time can make it end."""
    asking()
    clock.advance(timedelta(hours=13))
    assert asking(locate=True) == "mta-sts"
    assert len(policy_server.asked) == 2
    clock.advance(timedelta(hours=23))
    policy_server.status = 500
    assert asking(locate=True) == "mta-sts"


def test_a_new_id_brings_a_new_policy(asking, policy_server, dns):
    asking()
    policy_server.body = POLICY.replace("enforce", "testing").encode()
    dns.put("_mta-sts.a.example", "TXT", '"v=STSv1; id=2"')
    assert asking().mode == "testing"


@pytest.mark.parametrize("answer", ["gone", "servfail", "unfetchable", "broken"])
def test_a_kept_policy_holds_until_it_ends(asking, policy_server, dns, clock, answer):
    """Whoever can forge DNS, or stand between, cannot make us forget it."""
    asking()
    if answer == "gone":
        dns.put("_mta-sts.a.example", "TXT")
    elif answer == "servfail":
        dns.put("_mta-sts.a.example", "CNAME", "servfail.example.")
        dns.put("_mta-sts.a.example", "TXT")
    else:
        dns.put("_mta-sts.a.example", "TXT", '"v=STSv1; id=2"')
        policy_server.status = 500 if answer == "unfetchable" else 200
        policy_server.body = b"<html>"
    clock.advance(timedelta(hours=23))
    assert asking(locate=True) == "mta-sts"
    clock.advance(timedelta(hours=2))
    assert asking() is None


def _redirect(server):
    server.status, server.headers = 301, {"Location": "https://elsewhere.example/"}


def _html(server):
    server.headers = {"Content-Type": "text/html"}


def _large(server):
    server.body += b"x: y\n" * 20_000


@pytest.mark.parametrize("change", [_redirect, _html, _large], ids=["redirect", "html", "large"])
def test_answers_that_are_no_policy(asking, policy_server, change):
    change(policy_server)
    assert asking() is None
    assert len(policy_server.asked) == 1


def test_a_policy_under_a_wrong_certificate(tmp_path, dns, clock, authority):
    """Of another name, of another authority: nobody vouches for what it says."""
    other = Authority(tmp_path, "Other")
    for issued in (authority.issue("a.example"), other.issue("mta-sts.a.example")):
        with HttpsServer(issued.context()) as server:
            server.body = POLICY.encode()
            assert Asking(tmp_path, authority, dns, server, clock)() is None
            assert server.asked == []


def test_private_addresses_are_not_asked(tmp_path, authority, dns, policy_server, clock):
    asking = Asking(tmp_path, authority, dns, policy_server, clock, allow_private=False)
    assert asking() is None
    assert policy_server.asked == []


def test_enforcing(asking, policy_server, dns):
    assert asking(locate=True) == "mta-sts"
    policy_server.body = POLICY.replace("mx.a.example", "mx2.a.example").encode()
    dns.put("_mta-sts.a.example", "TXT", '"v=STSv1; id=2"')
    with pytest.raises(UnroutableError, match=r"does not name mx\.a\.example") as raised:
        asking(locate=True)
    assert not raised.value.is_permanent


def test_testing_only_looks(asking, policy_server):
    policy_server.body = POLICY.replace("enforce", "testing").encode()
    assert asking(locate=True) == "opportunistic"
