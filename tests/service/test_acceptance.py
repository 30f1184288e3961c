"""Whose mail it is: what is not in a cache is no answer."""

import asyncio

import pytest

from sendback.mail.address import parse_address
from sendback.receipt.filters import FilterPolicy, IpFilter
from sendback.receipt.model import AddHeaderAction, Rule, TlsPolicy
from sendback.service.receiving.acceptance import Acceptance, Refusal
from sendback.service.rules.compiled import CompiledRuleSets, VersionMissingError
from sendback.store.access.accounts import AddAccount
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import Store, prepare_schema
from sendback.store.identities.identities import (
    Identity,
    IdentityKind,
    PutIdentity,
    VerificationStatus,
)
from sendback.store.rules.filters import AddFilter
from sendback.store.rules.rule_sets import ActivateRuleSet, LoadRules, PutRuleSet
from tests.conftest import NOW
from tests.partners.postgresql import database_url

CLIENT = "192.0.2.1"
BLOCK = IpFilter("f", FilterPolicy.BLOCK, CLIENT)


@pytest.fixture
def store(tmp_path):
    url = database_url(tmp_path)
    prepare_schema(url)
    instance = Store(url, tmp_path)
    yield instance
    instance.close()


def rules(*recipients, tls=TlsPolicy.OPTIONAL, name="r"):
    actions = (AddHeaderAction("X-A", "b"),)
    return (Rule(name, enabled=True, recipients=recipients, actions=actions, tls_policy=tls),)


async def account(store, number, its_rules):
    """An account with its own domain and these rules; returns an address of it."""
    name, domain = f"{number:012}", f"d{number}.example"
    await store.write(AddAccount(name, NOW))
    identity = Identity(
        name, domain, IdentityKind.DOMAIN, VerificationStatus.SUCCESS, f"token{number}", NOW
    )
    await store.write(PutIdentity(identity))
    await store.write(PutRuleSet(name, "main", NOW, its_rules))
    await store.write(ActivateRuleSet(name, "main"))
    return parse_address(f"bob@{domain}")


@pytest.mark.parametrize("room", [0, 1, 3, 400_000])
def test_a_decision_does_not_hang_on_what_is_compiled_meanwhile(store, monkeypatch, room):
    """Of 150 versions there is room for few: a known recipient stays accepted, and needs TLS."""
    monkeypatch.setattr("sendback.service.rules.compiled._CACHED_CONDITIONS", room)

    async def story():
        acceptance = Acceptance(store, CompiledRuleSets(store), receive_without_rules=True)
        known = {}
        for number in range(150):
            tls = TlsPolicy.REQUIRE if number % 2 else TlsPolicy.OPTIONAL
            address = await account(store, number, rules(tls=tls, name=f"r{number}"))
            known[number] = address
        for number, address in known.items():
            accepted = await acceptance.decide(address, CLIENT, encrypted=True)
            assert [receiver.account_id for receiver in accepted] == [f"{number:012}"]
            in_clear = await acceptance.decide(address, CLIENT, encrypted=False)
            assert in_clear == (Refusal.TLS_REQUIRED if number % 2 else accepted)
            other = parse_address(f"x@d{number}.example")
            assert await acceptance.decide(other, CLIENT, encrypted=True)

    asyncio.run(story())


def test_rules_that_are_gone_are_no_refusal_for_good(store):
    async def story():
        address = await account(store, 1, rules())
        await store.write(lambda c: c.exec_driver_sql("DELETE FROM rule_set_versions"))
        acceptance = Acceptance(store, CompiledRuleSets(store), receive_without_rules=True)
        with pytest.raises(StoreUnavailableError, match="are gone"):
            await acceptance.decide(address, CLIENT, encrypted=True)
        assert acceptance.known_decision(address, CLIENT, encrypted=True) is None
        with pytest.raises(VersionMissingError):
            await CompiledRuleSets(store).get("nothing")

    asyncio.run(story())


def test_a_read_that_fails_is_not_remembered(store, monkeypatch):
    async def story():
        address = await account(store, 1, rules())
        acceptance = Acceptance(store, CompiledRuleSets(store), receive_without_rules=True)
        read = store.read

        async def failing(_unit):
            raise StoreUnavailableError("locked")

        monkeypatch.setattr(store, "read", failing)
        with pytest.raises(StoreUnavailableError):
            await acceptance.decide(address, CLIENT, encrypted=True)
        with pytest.raises(StoreUnavailableError):
            await acceptance.admits(CLIENT)
        assert acceptance.known_admission(CLIENT) is None
        monkeypatch.setattr(store, "read", read)
        assert await acceptance.admits(CLIENT)
        assert isinstance(await acceptance.decide(address, CLIENT, encrypted=True), tuple)

    asyncio.run(story())


def test_what_many_ask_for_at_once_is_loaded_and_compiled_once(store, monkeypatch):
    async def story():
        await account(store, 1, rules())
        rule_sets = CompiledRuleSets(store)
        (version,) = await store.read(
            lambda c: c.exec_driver_sql("SELECT version FROM rule_sets").scalars().all()
        )
        loads = []
        read = store.read

        async def counted(unit):
            loads.append(isinstance(unit, LoadRules))
            return await read(unit)

        monkeypatch.setattr(store, "read", counted)
        found = await asyncio.gather(*(rule_sets.get(version) for _ in range(100)))
        assert loads == [True]
        assert all(each is found[0] for each in found)

    asyncio.run(story())


def test_what_is_cached_is_bounded_and_ends_with_a_change(store, monkeypatch):
    """The recipient that was not used for longest goes first, never all of them."""
    monkeypatch.setattr("sendback.service.receiving.acceptance._CACHED_RECIPIENTS", 50)

    async def story():
        address = await account(store, 1, rules())
        acceptance = Acceptance(store, CompiledRuleSets(store), receive_without_rules=True)
        names = [parse_address(f"u{number}@{address.domain}") for number in range(80)]

        def known(name):
            return acceptance.known_decision(name, CLIENT, encrypted=True) is not None

        for name in names:
            await acceptance.decide(name, CLIENT, encrypted=True)
        assert [known(name) for name in names] == [False] * 30 + [True] * 50
        await store.write(AddFilter("000000000001", BLOCK, 10))
        assert not known(names[-1])
        decision = await acceptance.decide(names[-1], CLIENT, encrypted=True)
        assert decision is Refusal.BLOCKED

    asyncio.run(story())


def test_a_recipient_that_is_unknown_is_looked_up_each_time(store):
    async def story():
        acceptance = Acceptance(store, CompiledRuleSets(store), receive_without_rules=True)
        address = parse_address("bob@d1.example")
        for _ in range(2):
            assert await acceptance.decide(address, CLIENT, encrypted=True) is Refusal.UNKNOWN
            assert acceptance.known_decision(address, CLIENT, encrypted=True) is None
        await account(store, 1, rules())
        assert isinstance(await acceptance.decide(address, CLIENT, encrypted=True), tuple)

    asyncio.run(story())


def test_a_client_that_was_admitted_can_be_blocked_at_the_next_command(store):
    async def story():
        address = await account(store, 1, rules())
        acceptance = Acceptance(store, CompiledRuleSets(store), receive_without_rules=True)
        assert await acceptance.admits(CLIENT)
        assert acceptance.known_admission(CLIENT)
        await store.write(AddFilter("000000000001", BLOCK, 10))
        assert acceptance.known_admission(CLIENT) is None
        assert await acceptance.decide(address, CLIENT, encrypted=True) is Refusal.BLOCKED

    asyncio.run(story())
