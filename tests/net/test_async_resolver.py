"""DNS on the event loop: what is remembered, for how long, and who is believed."""

import asyncio

import pytest

from sendback.net import dns_cache as module
from sendback.net.async_resolver import AsyncResolver
from sendback.net.dns_answers import DnsFailedError
from tests.partners.dns_server import DnsServer

ZONE = """\
a.example. 300 IN A 192.0.2.1
"""


@pytest.fixture
def dns():
    with DnsServer(ZONE, secure=("a.example",)) as server:
        yield server


def resolver(dns, *, trusted=None, seconds=1.0):
    return AsyncResolver([("127.0.0.1", dns.port)], trusted=trusted, seconds=seconds)


def test_records_names_and_nothing(dns):
    async def story():
        asked = resolver(dns)
        found = await asked.query("A.example.", "A")
        assert [record.address for record in found.records] == ["192.0.2.1"]
        assert (found.exists, found.is_secure) == (True, True)
        nothing = await asked.query("a.example", "AAAA")
        assert (nothing.records, nothing.exists) == ((), True)
        assert not (await asked.query("b.example", "A")).exists
        for name, kind in (("a.example", "A"), ("a.example", "AAAA"), ("b.example", "A")):
            await asked.query(name, kind)

    asyncio.run(story())
    assert len(dns.questions) == 3


def test_an_answer_is_kept_as_long_as_it_says(dns, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])

    async def story():
        asked = resolver(dns)
        for later in (0, 299, 2, 100):
            now[0] += later
            await asked.query("a.example", "A")

    asyncio.run(story())
    assert len(dns.questions) == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x.servfail.example", "the servers answer SERVFAIL"),
        ("x.silent.example", "no answer in time"),
        ("x.garbage.example", ""),
        ("a..example", "A DNS label is empty"),
        ("a" * 64 + ".example", "A DNS label is > 63 octets long"),
    ],
)
def test_failures_are_told_apart_and_remembered_for_a_while(dns, monkeypatch, name, reason):
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])

    async def story():
        asked = resolver(dns)
        for _ in range(2):
            with pytest.raises(DnsFailedError) as raised:
                await asked.query(name, "A")
            assert reason in str(raised.value)
        seen = len(dns.questions)
        now[0] += 11
        with pytest.raises(DnsFailedError):
            await asked.query(name, "A")
        return seen

    seen = asyncio.run(story())
    if seen:
        assert len(dns.questions) == 2 * seen


@pytest.mark.parametrize(("trusted", "secure"), [(None, True), (True, True), (False, False)])
def test_who_is_believed_about_dnssec(dns, trusted, secure):
    async def story():
        return (await resolver(dns, trusted=trusted).query("a.example", "A")).is_secure

    assert asyncio.run(story()) is secure


def test_servers_elsewhere_are_not_believed_unless_it_is_said():
    assert not AsyncResolver([("192.0.2.53", 53)], trusted=None, seconds=1).is_trusted
    assert not AsyncResolver(
        [("127.0.0.1", 53), ("192.0.2.53", 53)], trusted=None, seconds=1
    ).is_trusted
    assert AsyncResolver([("::1", 53)], trusted=None, seconds=1).is_trusted
    assert AsyncResolver([("192.0.2.53", 53)], trusted=True, seconds=1).is_trusted


def test_who_gives_up_does_not_take_the_answer_from_others(dns):
    async def story():
        asked = resolver(dns)
        first, second = (asyncio.create_task(asked.query("a.example", "A")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return (await second).records

    assert asyncio.run(story())
    assert len(dns.questions) == 1


def test_addresses(dns):
    async def story():
        asked = resolver(dns)
        assert await asked.addresses("a.example") == ["192.0.2.1"]
        with pytest.raises(OSError, match="has no address"):
            await asked.addresses("b.example")
        with pytest.raises(OSError, match="SERVFAIL"):
            await asked.addresses("x.servfail.example")

    asyncio.run(story())
