"""Whose mail it is: what is not in a cache is no answer."""

import asyncio

import pytest

from sendback.mail.address import parse_address
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
from sendback.store.rules.rule_sets import ActivateRuleSet, LoadRules, PutRuleSet
from tests.conftest import NOW

CLIENT = "192.0.2.1"


@pytest.fixture
def store(tmp_path):
    url = f"sqlite:///{tmp_path / 'x.db'}"
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


def decide(acceptance, receivers, address, *, encrypted=False):
    return acceptance.decide(receivers, address, CLIENT, encrypted=encrypted)


@pytest.mark.parametrize("room", [0, 1, 3, 400_000])
def test_a_decision_does_not_hang_on_what_is_compiled_meanwhile(store, monkeypatch, room):
    """Of 150 versions there is room for few: a known recipient stays accepted, and needs TLS."""
    monkeypatch.setattr("sendback.service.rules.compiled._CACHED_CONDITIONS", room)

    async def story():
        acceptance = Acceptance(store, CompiledRuleSets(store), receive_without_rules=True)
        await acceptance.admits(CLIENT)
        known = {}
        for number in range(150):
            tls = TlsPolicy.REQUIRE if number % 2 else TlsPolicy.OPTIONAL
            address = await account(store, number, rules(tls=tls, name=f"r{number}"))
            known[number] = address, await acceptance.receivers(address)
        for number, (address, receivers) in known.items():
            accepted = decide(acceptance, receivers, address, encrypted=True)
            assert [receiver.account_id for receiver in accepted] == [f"{number:012}"]
            in_clear = decide(acceptance, receivers, address)
            assert in_clear == (Refusal.TLS_REQUIRED if number % 2 else accepted)
            assert decide(acceptance, receivers, parse_address(f"x@d{number}.example"))

    asyncio.run(story())


def test_rules_that_are_gone_are_no_refusal_for_good(store):
    async def story():
        address = await account(store, 1, rules())
        await store.write(lambda c: c.exec_driver_sql("DELETE FROM rule_set_versions"))
        acceptance = Acceptance(store, CompiledRuleSets(store), receive_without_rules=True)
        with pytest.raises(StoreUnavailableError, match="are gone"):
            await acceptance.receivers(address)
        assert acceptance.known_receivers(address) is None
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
            await acceptance.receivers(address)
        with pytest.raises(StoreUnavailableError):
            await acceptance.admits(CLIENT)
        assert acceptance.known_admission(CLIENT) is None
        monkeypatch.setattr(store, "read", read)
        assert await acceptance.receivers(address)

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


def test_what_is_remembered_is_bounded_and_ends(store, monkeypatch):
    """Ten thousand recipients, a second each: the oldest goes first, never all of them."""
    monkeypatch.setattr("sendback.service.receiving.acceptance._CACHED_RECIPIENTS", 50)
    monkeypatch.setattr("sendback.service.receiving.acceptance._CACHE_SECONDS", 3600.0)

    async def story():
        address = await account(store, 1, rules())
        acceptance = Acceptance(store, CompiledRuleSets(store), receive_without_rules=True)
        names = [parse_address(f"u{number}@{address.domain}") for number in range(80)]
        for name in names:
            await acceptance.receivers(name)
        known = [acceptance.known_receivers(name) is not None for name in names]
        assert known == [False] * 30 + [True] * 50
        acceptance.clear_cache()
        assert acceptance.known_receivers(names[-1]) is None

    asyncio.run(story())
