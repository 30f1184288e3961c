"""Proving domains by DNS: the life of a check, and real questions to a DNS server on loopback."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.net.resolver import Resolver
from sendback.service.identities.dns_status import (
    VERIFICATION_PERIOD,
    Observation,
    Presence,
    updated,
)
from sendback.store.identities.checks import CheckKind, IdentityCheck
from sendback.store.identities.identities import VerificationStatus
from tests.partners.dns_server import DnsServer

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
S = VerificationStatus
FOUND, ABSENT, UNKNOWN = (
    Observation(Presence.FOUND),
    Observation(Presence.ABSENT, "gone"),
    Observation(Presence.UNKNOWN, "no answer"),
)


def check(kind=CheckKind.DKIM, status=S.PENDING, **more):
    return IdentityCheck("0", "example.com", kind, status, NOW, NOW, **more)


@pytest.mark.parametrize(
    ("kind", "status", "away", "seen", "after", "expected", "due"),
    [
        # never found
        ("dkim", S.PENDING, None, FOUND, HOUR, S.SUCCESS, 24 * HOUR),
        ("dkim", S.PENDING, None, ABSENT, timedelta(0), S.PENDING, timedelta(minutes=1)),
        ("dkim", S.PENDING, None, ABSENT, 5 * HOUR, S.PENDING, HOUR / 2),
        ("dkim", S.PENDING, None, ABSENT, 71 * HOUR, S.PENDING, HOUR),
        ("dkim", S.PENDING, None, ABSENT, 72 * HOUR, S.FAILED, None),
        ("dkim", S.PENDING, None, UNKNOWN, HOUR, S.PENDING, HOUR / 10),
        ("dkim", S.PENDING, None, UNKNOWN, 72 * HOUR, S.FAILED, None),
        ("dkim", S.PENDING, None, FOUND, 80 * HOUR, S.SUCCESS, 24 * HOUR),
        # found once
        ("dkim", S.SUCCESS, None, FOUND, 99 * HOUR, S.SUCCESS, 24 * HOUR),
        ("dkim", S.SUCCESS, None, ABSENT, 99 * HOUR, S.TEMPORARY_FAILURE, HOUR),
        ("domain", S.SUCCESS, None, ABSENT, 99 * HOUR, S.SUCCESS, HOUR),
        ("mail_from", S.SUCCESS, None, ABSENT, 99 * HOUR, S.TEMPORARY_FAILURE, HOUR),
        ("dkim", S.SUCCESS, None, UNKNOWN, 999 * HOUR, S.SUCCESS, HOUR),
        # away
        ("dkim", S.TEMPORARY_FAILURE, 98, ABSENT, 99 * HOUR, S.TEMPORARY_FAILURE, HOUR),
        ("dkim", S.TEMPORARY_FAILURE, 27, ABSENT, 99 * HOUR, S.FAILED, None),
        ("domain", S.SUCCESS, 27, ABSENT, 99 * HOUR, S.FAILED, None),
        ("dkim", S.TEMPORARY_FAILURE, 27, UNKNOWN, 99 * HOUR, S.TEMPORARY_FAILURE, HOUR),
        ("dkim", S.TEMPORARY_FAILURE, 27, FOUND, 99 * HOUR, S.SUCCESS, 24 * HOUR),
    ],
)
def test_the_life_of_a_check(kind, status, away, seen, after, expected, due):
    since = NOW + away * HOUR if away else None
    before = check(CheckKind(kind), status, away_since=since)
    result = updated(before, seen, NOW + after)
    assert result.status is expected
    assert result.due_at == (NOW + after + due if due is not None else None)
    assert (result.checked_at, result.reason) == (NOW + after, seen.reason)
    if seen is FOUND:
        assert result.away_since is None


@given(st.lists(st.tuples(st.sampled_from([FOUND, ABSENT, UNKNOWN]), st.integers(1, 100))))
def test_what_was_found_is_good_for_three_days_after_it_was_seen_last(observations):
    found, now, last = check(), NOW, None
    for seen, hours in observations:
        if found.due_at is None:
            break
        now += hours * HOUR
        found = updated(found, seen, now)
        if seen is FOUND:
            last = now
        if found.status is S.FAILED:
            assert now - (last or NOW) >= VERIFICATION_PERIOD
        if last is not None and now - last < VERIFICATION_PERIOD:
            assert found.status in {S.SUCCESS, S.TEMPORARY_FAILURE}


# --- with DNS -------------------------------------------------------------------------------------


@pytest.fixture
def dns():
    with DnsServer("") as server:
        yield server


@pytest.fixture
def proving(running, dns, monkeypatch):
    """A server that looks when the test says so."""
    monkeypatch.setattr("sendback.service.identities.dns_checks._POLL_SECONDS", 3600)
    return running(verification="proved", dns=dns.address, send_bounce_rate="0")


def look(server):
    """What is due is looked for, as the server does by itself every ten seconds."""
    return server.run(server.app.identity_checks.check_due())


def ask(server, name="example.com"):
    found = server.run(server.app.identity_checks.check("000000000000", name))
    return {each.kind.value: (each.status.value, each.reason) for each in found}


def status(server, name="example.com"):
    found = server.ses.get_identity_verification_attributes(Identities=[name])
    return found["VerificationAttributes"][name]["VerificationStatus"]


def test_a_domain_from_pending_to_lost(proving, dns, clock):
    ses = proving.ses
    token = ses.verify_domain_identity(Domain="example.com")["VerificationToken"]
    assert ask(proving) == {
        "domain": ("Pending", "there is no TXT record at _amazonses.example.com")
    }
    assert status(proving) == "Pending"
    with pytest.raises(AssertionError):
        proving.send_mail()
    dns.put("_amazonses.example.com", "TXT", '"v=other"', f'"{token}"')
    clock.advance(timedelta(minutes=2))
    look(proving)
    assert status(proving) == "Success"
    assert proving.send_mail()
    # The records go away, and stay away for three days.
    dns.put("_amazonses.example.com", "TXT")
    clock.advance(timedelta(hours=25))
    look(proving)
    assert status(proving) == "Success"
    assert ask(proving)["domain"][1] == "there is no TXT record at _amazonses.example.com"
    clock.advance(timedelta(hours=73))
    look(proving)
    assert status(proving) == "Failed"
    with pytest.raises(AssertionError):
        proving.send_mail()
    # Nothing is looked for any more, until it is asked for again: the token is the same.
    dns.put("_amazonses.example.com", "TXT", f'"{token}"')
    clock.advance(timedelta(days=30))
    assert look(proving) == 0
    assert ses.verify_domain_identity(Domain="example.com")["VerificationToken"] == token
    assert status(proving) == "Pending"
    look(proving)
    assert status(proving) == "Success"


def test_a_domain_that_is_never_proved(proving, clock):
    proving.ses.verify_domain_identity(Domain="example.com")
    for _ in range(80):
        clock.advance(timedelta(hours=1))
        look(proving)
    assert status(proving) == "Failed"


def test_asking_by_hand_begins_anew(proving, dns, clock):
    token = proving.ses.verify_domain_identity(Domain="example.com")["VerificationToken"]
    clock.advance(timedelta(hours=80))
    look(proving)
    assert status(proving) == "Failed"
    dns.put("_amazonses.example.com", "TXT", f'"{token}"')
    assert ask(proving) == {"domain": ("Success", "")}
    assert status(proving) == "Success"


def test_dns_that_lies_or_does_not_answer(proving, dns):
    ses = proving.ses
    for name in ("example.com", "servfail.example", "garbage.example"):
        ses.verify_domain_identity(Domain=name)
    dns.put("_amazonses.example.com", "TXT", '"somebody else\'s\\027[31m"')
    assert ask(proving)["domain"] == (
        "Pending",
        "the TXT records at _amazonses.example.com are others: somebody else's\ufffd[31m",
    )
    for name in ("servfail.example", "garbage.example"):
        state, reason = ask(proving, name)["domain"]
        assert state == "Pending"
        assert reason.startswith(f"_amazonses.{name} TXT: ")
        assert len(reason) <= 200


def test_five_hundred_records_prove_nothing(proving, dns):
    token = proving.ses.verify_domain_identity(Domain="example.com")["VerificationToken"]
    values = [f'"{token}"', *(f'"x{number}"' for number in range(499))]
    dns.put("_amazonses.example.com", "TXT", *values)
    assert ask(proving)["domain"] == (
        "Pending",
        "_amazonses.example.com TXT: 500 records, at most 100 are looked at",
    )


def test_a_server_that_is_silent(running):
    with DnsServer("") as dns:
        server = running(verification="proved", dns=dns.address)
        server.ses.verify_domain_identity(Domain="silent.example")
        found = server.app.identity_checks.check("000000000000", "silent.example")
        (seen,) = server.run(found)
        assert seen.status is S.PENDING
        assert "no answer in time" in seen.reason


def test_without_dns_nothing_is_proved(running):
    server = running(verification="proved", dns="off")
    server.ses.verify_domain_identity(Domain="example.com")
    assert ask(server) == {"domain": ("Pending", "DNS is off (the setting dns)")}


# --- DKIM and MAIL FROM ---------------------------------------------------------------------------


def publish(server, dns, domain="example.com"):
    keys = server.run(server.app.identities.dkim_keys("000000000000", [domain]))
    for key in keys:
        value = f"v=DKIM1; k={key.algorithm}; p={key.public_key}"
        strings = " ".join(f'"{value[at : at + 200]}"' for at in range(0, len(value), 200))
        dns.put(f"{key.selector}._domainkey.{domain}", "TXT", strings)
    return keys


def test_dkim_proves_the_domain_too(proving, dns, clock):
    ses = proving.ses
    tokens = ses.verify_domain_dkim(Domain="example.com")["DkimTokens"]
    assert status(proving) == "Pending"
    state, reason = ask(proving)["dkim"]
    assert state == "Pending"
    assert all(f"{token}._domainkey.example.com" in reason for token in tokens)
    publish(proving, dns)
    clock.advance(timedelta(minutes=2))
    look(proving)
    found = ses.get_identity_dkim_attributes(Identities=["example.com"])["DkimAttributes"]
    assert found["example.com"]["DkimVerificationStatus"] == "Success"
    assert status(proving) == "Success"
    # A standby key goes away: nothing is signed with it, so the reason is all there is.
    dns.put(f"{tokens[1]}._domainkey.example.com", "TXT", '"v=DKIM1; p="')
    clock.advance(timedelta(hours=25))
    state, reason = ask(proving)["dkim"]
    assert (state, reason) == ("Success", f"no such key at {tokens[1]}._domainkey.example.com")
    # The active key goes away: temporary at first, and the domain is lost with it.
    dns.put(f"{tokens[0]}._domainkey.example.com", "TXT", '"v=DKIM1; p="')
    clock.advance(timedelta(hours=25))
    look(proving)
    found = ses.get_identity_dkim_attributes(Identities=["example.com"])["DkimAttributes"]
    assert found["example.com"]["DkimVerificationStatus"] == "TemporaryFailure"
    assert status(proving) == "Success"
    clock.advance(timedelta(hours=73))
    look(proving)
    assert status(proving) == "Pending"
    found = ses.get_identity_dkim_attributes(Identities=["example.com"])["DkimAttributes"]
    assert found["example.com"]["DkimVerificationStatus"] == "Failed"


def test_a_cname_to_where_the_key_is(proving, dns):
    proving.ses.verify_domain_dkim(Domain="example.com")
    keys = publish(proving, dns, "example.com")
    for key in keys:
        name = f"{key.selector}._domainkey.example.com"
        (text,) = dns.records[f"{name}.", "TXT"]
        dns.put(name, "TXT")
        dns.put(name, "CNAME", f"{key.selector}.dkim.mx.example.com.")
        dns.put(f"{key.selector}.dkim.mx.example.com", "TXT", text)
    assert ask(proving)["dkim"] == ("Success", "")


def test_rotation_overlaps(proving, dns, clock):
    from sendback.store.identities.dkim_keys import RotationError

    identities = proving.app.identities
    ses = proving.ses
    first = ses.verify_domain_dkim(Domain="example.com")["DkimTokens"]
    with pytest.raises(RotationError, match=r"not published yet: no record at"):
        proving.run(identities.rotate_dkim("000000000000", "example.com"))
    old = publish(proving, dns)
    assert ask(proving)["dkim"][0] == "Success"
    proving.run(identities.rotate_dkim("000000000000", "example.com"))
    keys = proving.run(identities.dkim_keys("000000000000", ["example.com"]))
    states = {key.selector: key.state.value for key in keys}
    (active,) = [key.selector for key in old if key.state == "active"]
    standby, other = [key.selector for key in old if key.state == "standby"]
    new = (states.keys() - first).pop()
    assert states == {active: "retired", standby: "active", other: "standby", new: "standby"}
    assert next(key for key in keys if key.selector == active).sealed_key is None
    # The new reserve is to be published before it can be used.
    assert set(ses.verify_domain_dkim(Domain="example.com")["DkimTokens"]) == {standby, other, new}
    assert ask(proving)["dkim"][0] == "Success"
    assert new in ask(proving)["dkim"][1]
    proving.run(identities.rotate_dkim("000000000000", "example.com"))  # the other one was seen
    with pytest.raises(RotationError):
        proving.run(identities.rotate_dkim("000000000000", "example.com"))
    clock.advance(timedelta(days=15))
    proving.run(proving.app.housekeeping.sweep())
    keys = proving.run(identities.dkim_keys("000000000000", ["example.com"]))
    assert not {active, standby} & {key.selector for key in keys}


def test_the_mail_from_domain(proving, dns, clock):
    ses = proving.ses
    ses.verify_domain_identity(Domain="example.com")
    ses.set_identity_mail_from_domain(Identity="example.com", MailFromDomain="m.example.com")

    def state():
        found = ses.get_identity_mail_from_domain_attributes(Identities=["example.com"])
        return found["MailFromDomainAttributes"]["example.com"]["MailFromDomainStatus"]

    assert state() == "Pending"
    dns.put("m.example.com", "MX", "10 mx.other.example.", "20 mx.example.com.")
    assert ask(proving)["mail_from"] == (
        "Pending",
        "the MX records at m.example.com are others: mx.example.com, mx.other.example",
    )
    dns.put("m.example.com", "MX", "10 MX.example.com.")
    clock.advance(timedelta(minutes=2))
    look(proving)
    assert state() == "Success"
    ses.set_identity_mail_from_domain(Identity="example.com", MailFromDomain="n.example.com")
    assert state() == "Pending"


def test_two_accounts_prove_one_domain_each_by_its_own_token(proving, dns):
    tokens = [
        client.verify_domain_identity(Domain="example.com")["VerificationToken"]
        for client in (proving.ses, proving.ses_of("111111111111", "bea"))
    ]
    assert len(set(tokens)) == 2
    dns.put("_amazonses.example.com", "TXT", f'"{tokens[1]}"')
    look(proving)
    assert status(proving) == "Pending"
    dns.put("_amazonses.example.com", "TXT", *(f'"{token}"' for token in tokens))
    assert ask(proving)["domain"] == ("Success", "")


def test_a_check_of_a_deleted_identity_ends(proving):
    ses = proving.ses
    ses.verify_domain_identity(Domain="example.com")
    ses.delete_identity(Identity="example.com")
    assert look(proving) == 0


# --- what breaks ---------------------------------------------------------------------------------


def broken_for(server, monkeypatch, identity, error):
    """From now on looking for one identity raises, for all others it works."""
    query = Resolver.query

    def query_or_break(self, name, kind, seconds):
        if name.endswith(identity):
            raise error
        return query(self, name, kind, seconds)

    monkeypatch.setattr(Resolver, "query", query_or_break)


def row(server, identity, column):
    from sendback.store.engine.tables import identity_checks

    def unit(connection):
        query = f"SELECT {column} FROM {identity_checks.name} WHERE identity = '{identity}'"
        return connection.exec_driver_sql(query).scalar_one()

    return server.run(server.app.store.read(unit))


@pytest.mark.parametrize("error", [RuntimeError("a bug"), RecursionError(), MemoryError()])
def test_one_check_that_breaks_stops_no_other_and_is_set_aside(
    proving, dns, clock, monkeypatch, error
):
    ses = proving.ses
    for name in ("bad.example", "good.example", "other.example"):
        token = ses.verify_domain_identity(Domain=name)["VerificationToken"]
        dns.put(f"_amazonses.{name}", "TXT", f'"{token}"')
    broken_for(proving, monkeypatch, "bad.example", error)
    assert look(proving) == 3
    assert status(proving, "good.example") == status(proving, "other.example") == "Success"
    for _ in range(6):
        clock.advance(timedelta(hours=1))
        look(proving)
        proving.run(proving.app.identity_checks.check_suspects())
    assert status(proving, "bad.example") == "Failed"
    assert row(proving, "bad.example", "due_at") is None
    assert "internal error" in row(proving, "bad.example", "reason")
    # By hand it begins anew.
    monkeypatch.undo()
    assert ask(proving, "bad.example") == {"domain": ("Success", "")}
    assert row(proving, "bad.example", "tries") == 0


def test_what_was_proved_stays_proved_when_its_check_is_set_aside(proving, dns, clock, monkeypatch):
    """Not knowing proves nothing; asked for again through the API, it is looked for again."""
    ses = proving.ses
    token = ses.verify_domain_identity(Domain="example.com")["VerificationToken"]
    dns.put("_amazonses.example.com", "TXT", f'"{token}"')
    look(proving)
    broken_for(proving, monkeypatch, "example.com", RuntimeError("a bug"))
    for _ in range(8):
        clock.advance(timedelta(hours=30))
        look(proving)
        proving.run(proving.app.identity_checks.check_suspects())
    assert row(proving, "example.com", "due_at") is None
    assert status(proving) == "Success"
    assert proving.send_mail()
    monkeypatch.setattr("sendback.service.identities.dns_checks._POLL_SECONDS", 3600)
    ses.verify_domain_identity(Domain="example.com")
    assert row(proving, "example.com", "due_at") is not None
    assert status(proving) == "Success"


def test_a_check_by_hand_says_what_broke_and_finishes_the_others(proving, monkeypatch):
    proving.ses.verify_domain_identity(Domain="example.com")
    broken_for(proving, monkeypatch, "example.com", RuntimeError("a bug"))
    assert ask(proving) == {"domain": ("Pending", "internal error: RuntimeError('a bug')")}


def test_a_store_that_cannot_be_read_breaks_no_check(proving, dns, clock, monkeypatch):
    from sendback.store.engine.errors import StoreUnavailableError

    token = proving.ses.verify_domain_identity(Domain="example.com")["VerificationToken"]
    dns.put("_amazonses.example.com", "TXT", f'"{token}"')
    broken_for(proving, monkeypatch, "example.com", StoreUnavailableError("locked"))
    for _ in range(12):
        look(proving)
        assert row(proving, "example.com", "tries") == 0
        clock.advance(timedelta(minutes=2))
    monkeypatch.undo()
    look(proving)
    assert status(proving) == "Success"


def test_a_check_that_never_ends_is_ended(proving, monkeypatch):
    monkeypatch.setattr("sendback.service.identities.dns_checks._LONGEST", 0.05)
    proving.ses.verify_domain_identity(Domain="example.com")

    released = threading.Event()
    monkeypatch.setattr(Resolver, "query", lambda *_: released.wait(20))
    assert look(proving) == 1
    released.set()
    assert "TimeoutError" in row(proving, "example.com", "reason")


def test_a_check_that_cannot_be_read_stops_no_other(proving, dns):
    ses = proving.ses
    for name in ("bad.example", "good.example"):
        token = ses.verify_domain_identity(Domain=name)["VerificationToken"]
        dns.put(f"_amazonses.{name}", "TXT", f'"{token}"')
    sql = "UPDATE identity_checks SET asked_at = 1152921504606846976 WHERE identity = 'bad.example'"
    proving.run(proving.app.store.write(lambda connection: connection.exec_driver_sql(sql)))
    assert look(proving) == 1
    assert status(proving, "good.example") == "Success"
    assert "cannot be read" in row(proving, "bad.example", "reason")


def test_a_check_changes_nothing_that_was_verified_at_once(running, dns):
    server = running(dns=dns.address, verification="at_once")
    server.ses.verify_domain_identity(Domain="example.com")
    server.ses.verify_domain_dkim(Domain="example.com")
    checks = server.run(server.app.identity_checks.check("000000000000", "example.com"))
    assert all("no" in check.reason for check in checks)
    found = server.ses.get_identity_dkim_attributes(Identities=["example.com"])
    assert found["DkimAttributes"]["example.com"]["DkimVerificationStatus"] == "Success"
