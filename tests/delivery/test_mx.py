"""Finding a domain's servers: what DNS says, and what becomes of it."""

import asyncio
import socket
from datetime import timedelta

import pytest

from sendback.delivery.mx import MxRouter, MxSettings
from sendback.delivery.routes import UnroutableError
from sendback.delivery.tls_policies import trusting
from sendback.mail.address import parse_address
from sendback.net.async_resolver import AsyncResolver
from sendback.store.outbox.control import FindOutboxMessage
from sendback.store.outbox.destinations import ListDestinations
from tests.partners.awkward import Awkward
from tests.partners.dns_server import DnsServer
from tests.partners.listener import Listener
from tests.partners.postfix import free_port
from tests.partners.waiting import wait_for

ZONE = """\
plain.example. 300 IN MX 20 second.mx.example.
plain.example. 300 IN MX 10 first.mx.example.
first.mx.example. 300 IN A 192.0.2.1
first.mx.example. 300 IN AAAA 2001:db8::1
first.mx.example. 300 IN A 192.0.2.2
second.mx.example. 300 IN A 192.0.2.3
bare.example. 300 IN A 192.0.2.4
null.example. 300 IN MX 0 .
half-null.example. 300 IN MX 0 .
half-null.example. 300 IN MX 10 second.mx.example.
text.example. 300 IN TXT "no server here"
gone.example. 300 IN MX 10 nowhere.mx.example.
odd.example. 300 IN MX 10 a\\032b\\013\\010c.mx.example.
half-odd.example. 300 IN MX 5 *.mx.example.
half-odd.example. 300 IN MX 10 second.mx.example.
bad.example. 300 IN MX 10 x.servfail.example.
half-bad.example. 300 IN MX 10 x.servfail.example.
half-bad.example. 300 IN MX 20 second.mx.example.
backup.example. 300 IN MX 10 first.mx.example.
backup.example. 300 IN MX 20 mx.here.example.
backup.example. 300 IN MX 20 second.mx.example.
backup.example. 300 IN MX 30 second.mx.example.
ours.example. 300 IN MX 10 MX.Here.Example.
inside.example. 300 IN MX 10 loop.mx.example.
loop.mx.example. 300 IN A 127.0.0.1
mixed.example. 300 IN MX 10 mixed.mx.example.
mixed.mx.example. 300 IN A 10.0.0.1
mixed.mx.example. 300 IN A 8.8.8.8
mixed.mx.example. 300 IN AAAA ::ffff:127.0.0.1
alias.example. 300 IN CNAME plain.example.
circle.example. 300 IN CNAME circle2.example.
circle2.example. 300 IN CNAME circle.example.
xn--bcher-kva.example. 300 IN MX 10 first.mx.example.
""" + "".join(f"many.example. 300 IN MX {n % 3} m{n}.mx.example.\n" for n in range(200))


@pytest.fixture
def dns():
    with DnsServer(ZONE) as server:
        yield server


def router(dns, *, allow_private=False, tls=None, trusted=False):
    resolver = AsyncResolver([("127.0.0.1", dns.port)], trusted=trusted, seconds=1.0)
    settings = MxSettings(25, frozenset({"mx.here.example"}), allow_private, tls or {})
    return MxRouter(resolver, None, settings, trusting(None))


def hosts(dns, domain, **options):
    found = asyncio.run(router(dns, **options).route(domain))
    return [hop.host for hop in found.hops]


def addresses(dns, domain, *, allow_private=True):
    async def main():
        asked = router(dns, allow_private=allow_private)
        route = await asked.route(domain)
        return list((await asked.locate(route, route.hops[0])).addresses)

    return asyncio.run(main())


def test_servers_come_in_the_order_of_their_preference(dns):
    assert hosts(dns, "plain.example") == ["first.mx.example", "second.mx.example"]


def test_equal_servers_come_in_chance_order(dns):
    orders = {tuple(hosts(dns, "many.example")) for _ in range(5)}
    assert len(orders) == 5
    for order in orders:
        assert [int(name[1:].partition(".")[0]) % 3 for name in order] == [0] * 20


def test_without_mx_the_domain_is_its_own_server(dns):
    assert hosts(dns, "bare.example") == ["bare.example"]


def test_an_alias_has_its_targets_servers(dns):
    assert hosts(dns, "alias.example") == ["first.mx.example", "second.mx.example"]


def test_non_ascii_domains_are_asked_for_by_their_a_labels(dns):
    domain = parse_address("ann@Bücher.example").ascii_domain
    assert hosts(dns, domain) == ["first.mx.example"]


def test_of_our_own_place_in_the_list_only_what_is_before_it(dns):
    assert hosts(dns, "backup.example") == ["first.mx.example"]


@pytest.mark.parametrize(
    ("domain", "reason", "is_permanent"),
    [
        ("nowhere.example", "5.1.2 there is no domain nowhere.example", True),
        ("null.example", "5.1.10 null.example takes no mail (null MX)", True),
        ("ours.example", "5.4.6 mail for ours.example would come back here", True),
        ("text.example", "5.4.4 text.example has no address", True),
        ("gone.example", "5.4.4 nowhere.mx.example has no address", True),
        ("odd.example", "5.4.4 the MX of odd.example is no host name: a\\032b\\013\\010c", True),
        ("inside.example", "5.4.4 loop.mx.example is 127.0.0.1, an address of a private", True),
        ("[127.0.0.1]", "5.4.4 127.0.0.1 is 127.0.0.1, an address of a private network", True),
        ("servfail.example", "4.4.3 DNS: servfail.example MX: ", False),
        ("garbage.example", "4.4.3 DNS: garbage.example MX: ", False),
        ("silent.example", "4.4.3 DNS: silent.example MX: ", False),
        ("circle.example", "4.4.3 DNS: circle.example MX: ", False),
        ("bad.example", "4.4.3 DNS: x.servfail.example A", False),
    ],
)
def test_no_way_there(dns, domain, reason, is_permanent):
    with pytest.raises(UnroutableError) as raised:
        addresses(dns, domain, allow_private=False)
    assert str(raised.value).startswith(reason)
    assert raised.value.is_permanent is is_permanent


def test_a_null_mx_beside_others_is_passed_over(dns):
    assert hosts(dns, "half-null.example") == ["second.mx.example"]


def test_what_is_no_host_name_is_passed_over(dns):
    assert hosts(dns, "half-odd.example") == ["second.mx.example"]


def test_both_kinds_of_addresses_in_turn(dns):
    found = addresses(dns, "plain.example")
    assert found[0] == "2001:db8::1"
    assert sorted(found[1:]) == ["192.0.2.1", "192.0.2.2"]


def test_of_mixed_addresses_only_public_ones(dns):
    assert addresses(dns, "mixed.example", allow_private=False) == ["8.8.8.8"]


@pytest.mark.parametrize(
    ("domain", "host"), [("[192.0.2.1]", "192.0.2.1"), ("[ipv6:2001:db8::1]", "2001:db8::1")]
)
def test_address_literals(dns, domain, host):
    assert addresses(dns, domain) == [host]


def test_questions_asked_at_once_are_one(dns):
    async def main():
        asked = router(dns)
        await asyncio.gather(*(asked.route("plain.example") for _ in range(20)))

    asyncio.run(main())
    assert dns.questions == [("plain.example.", "MX")]


@pytest.mark.parametrize(
    ("domain", "level"),
    [
        ("bank.example", "verified"),
        ("a.gov.example", "encrypted"),
        ("x.a.gov.example", "encrypted"),
        ("gov.example", "opportunistic"),
        ("other.example", "opportunistic"),
    ],
)
def test_the_tls_that_a_domain_needs(domain, level):
    tls = {"bank.example": "verified", ".gov.example": "encrypted"}
    assert MxSettings(25, frozenset(), True, tls).tls_for(domain) == level
    assert MxSettings(25, frozenset(), True, {**tls, "*": "encrypted"}).tls_for("o.example") == (
        "encrypted"
    )


# --- whole servers --------------------------------------------------------------------------


@pytest.fixture
def by_mx(running, dns):
    """A server that delivers by MX; answers it and a function that bounces a sender's mail."""
    port = free_port()

    def start(**flags):
        settings = {
            "send_bounce_rate": "0",
            "outbound": "mx",
            "dns": dns.address,
            "mx_port": str(port),
            "private_targets": "true",
            **flags,
        }
        server = running(**settings)
        server.ses.verify_domain_identity(Domain="example.com")

        return server, lambda sender: server.send_bounce(sender=sender)

    start.port = port
    return start


def put_domain(dns, domain, *addresses):
    """Each address is a server of its own, in this order."""
    dns.put(domain, "MX", *(f"{n} m{n}.{domain}." for n in range(len(addresses))))
    for n, address in enumerate(addresses):
        kind = "AAAA" if ":" in address else "A"
        dns.put(f"m{n}.{domain}", kind, address)


def destinations(server):
    found = server.run(server.app.store.read(ListDestinations()))
    return {entry.domain: entry for entry in found}


def test_a_bounce_reaches_the_first_server(by_mx, dns):
    put_domain(dns, "a.example", "127.0.0.2", "127.0.0.3")
    with Listener(host="127.0.0.2", port=by_mx.port) as first:
        server, bounce = by_mx()
        message_id = bounce("ann@a.example")
        assert first.next().recipients == ["ann@a.example"]
        assert server.bounce(message_id).state == "delivered"
        (attempt,) = server.attempts(message_id)
    assert attempt.peer == f"m0.a.example[127.0.0.2]:{by_mx.port}"
    assert attempt.tls_policy == "opportunistic"


def test_the_next_server_when_the_first_is_not_there(by_mx, dns):
    put_domain(dns, "a.example", "127.0.0.2", "127.0.0.3")
    with Listener(host="127.0.0.3", port=by_mx.port) as second:
        server, bounce = by_mx()
        message_id = bounce("ann@a.example")
        second.next()
        assert server.bounce(message_id).state == "delivered"
        assert server.attempts(message_id)[0].peer.startswith("m1.a.example[127.0.0.3]")


def test_when_no_server_answers_all_of_them_are_told_of(by_mx, dns):
    put_domain(dns, "a.example", "127.0.0.2", "127.0.0.3")
    with Awkward("greeting", lambda _: b"421 4.3.2 no\r\n", host="127.0.0.3", port=by_mx.port):
        server, bounce = by_mx()
        message_id = bounce("ann@a.example")
        wait_for(lambda: server.bounce(message_id).attempts)
        (attempt,) = server.attempts(message_id)
    assert attempt.peer == f"m1.a.example[127.0.0.3]:{by_mx.port}"
    first = f"m0.a.example[127.0.0.2]:{by_mx.port}: connect: Connection refused"
    assert attempt.reply == f"421 4.3.2 no; also {first}"


@pytest.mark.parametrize("place", [10, 15, 19])
def test_servers_without_an_address_cost_no_attempt(by_mx, dns, place):
    """The first ten have none; the eleventh, or a later one, works."""
    dns.put("a.example", "MX", *(f"{n} m{n}.a.example." for n in range(place + 1)))
    dns.put(f"m{place}.a.example", "A", "127.0.0.2")
    with Listener(host="127.0.0.2", port=by_mx.port) as last:
        server, bounce = by_mx()
        message_id = bounce("ann@a.example")
        last.next()
        assert server.bounce(message_id).state == "delivered"
        assert server.attempts(message_id)[0].peer.startswith(f"m{place}.a.example[127.0.0.2]")


def test_servers_that_were_connected_to_are_ten_at_most(by_mx, dns):
    put_domain(dns, "a.example", *(f"127.0.1.{n}" for n in range(1, 16)))
    with Listener(host="127.0.1.11", port=by_mx.port):  # the eleventh would take it
        server, bounce = by_mx()
        message_id = bounce("ann@a.example")
        wait_for(lambda: server.bounce(message_id).attempts)
        (attempt,) = server.attempts(message_id)
    assert (attempt.outcome, server.bounce(message_id).state) == ("temporary", "queued")


@pytest.mark.parametrize(
    ("servers", "outcome", "state"),
    [(1, "permanent", "failed"), (20, "permanent", "failed"), (21, "temporary", "queued")],
)
def test_no_address_is_final_when_all_were_looked_at(by_mx, dns, servers, outcome, state):
    dns.put("a.example", "MX", *(f"{n} m{n}.a.example." for n in range(servers)))
    server, bounce = by_mx()
    message_id = bounce("ann@a.example")
    wait_for(lambda: server.attempts(message_id))
    (attempt,) = server.attempts(message_id)
    wait_for(lambda: server.bounce(message_id).state == state)
    assert attempt.outcome == outcome
    assert "has no address" in attempt.reply


def test_a_long_list_of_names_that_are_none(dns):
    """Of a list that was cut nothing is final; what is no host name takes no place of one."""
    odd = [f"{n} *{n}.mx.example." for n in range(199)]
    dns.put("odd-many.example", "MX", *odd, "200 first.mx.example.")
    assert hosts(dns, "odd-many.example") == ["first.mx.example"]
    dns.put("odd-more.example", "MX", *odd, *(f"250 *x{n}.mx.example." for n in range(50)))
    with pytest.raises(UnroutableError) as raised:
        hosts(dns, "odd-more.example")
    assert not raised.value.is_permanent


def test_by_ipv6(by_mx, dns):
    put_domain(dns, "a.example", "::1")
    with Listener(host="::1", port=by_mx.port) as first:
        server, bounce = by_mx()
        message_id = bounce("ann@a.example")
        first.next()
        assert server.bounce(message_id).state == "delivered"
        assert server.attempts(message_id)[0].peer == f"m0.a.example[::1]:{by_mx.port}"


@pytest.mark.parametrize("misdeed", [lambda _: b"554 5.3.2 no\r\n", lambda _: None])
def test_the_next_server_when_the_first_does_not_greet(by_mx, dns, misdeed):
    put_domain(dns, "a.example", "127.0.0.2", "127.0.0.3")
    with (
        Awkward("greeting", misdeed, host="127.0.0.2", port=by_mx.port) as first,
        Listener(host="127.0.0.3", port=by_mx.port) as second,
    ):
        server, bounce = by_mx()
        message_id = bounce("ann@a.example")
        second.next()
        assert server.bounce(message_id).state == "delivered"
        assert first.sessions == 1


def test_an_address_that_is_silent_costs_half_a_second(by_mx, dns):
    """One server, two addresses; the first takes no connection and says nothing (a full queue)."""
    dns.put("a.example", "MX", "0 m.a.example.")
    dns.put("m.a.example", "A", "127.0.0.2", "127.0.0.3")
    silent = socket.socket()
    silent.bind(("127.0.0.2", by_mx.port))
    silent.listen(0)
    fill = [socket.socket() for _ in range(4)]
    for each in fill:
        each.setblocking(False)
        each.connect_ex(("127.0.0.2", by_mx.port))
    try:
        with Listener(host="127.0.0.3", port=by_mx.port) as second:
            server, bounce = by_mx()
            message_id = bounce("ann@a.example")
            second.next()
            wait_for(lambda: server.bounce(message_id).state == "delivered")
            (attempt,) = server.attempts(message_id)
        assert attempt.peer.startswith("m.a.example[127.0.0.3]")
        assert attempt.milliseconds < 5000
    finally:
        for each in (silent, *fill):
            each.close()


@pytest.mark.parametrize(
    ("domain", "state", "reply"),
    [
        ("nowhere.example", "failed", "5.1.2 there is no domain nowhere.example"),
        ("null.example", "failed", "5.1.10 null.example takes no mail (null MX)"),
        ("text.example", "failed", "5.4.4 text.example has no address"),
        ("servfail.example", "queued", "4.4.3 DNS: servfail.example MX: "),
    ],
)
def test_what_dns_says_is_recorded(by_mx, domain, state, reply):
    server, bounce = by_mx()
    found = server.bounce(bounce(f"ann@{domain}"))
    assert found.state == state
    assert found.last_reply.startswith(reply)


def test_private_addresses_are_refused(by_mx, dns):
    put_domain(dns, "a.example", "127.0.0.2")
    with Listener(host="127.0.0.2", port=by_mx.port) as first:
        server, bounce = by_mx(private_targets="auto")
        found = server.bounce(bounce("ann@a.example"))
        assert found.state == "failed"
        assert "setting private_targets forbids" in found.last_reply
        assert first.messages.empty()


def test_domains_of_one_server_share_its_sessions(by_mx, dns):
    for domain in ("a.example", "b.example"):
        dns.put(domain, "MX", "0 shared.example.")
    dns.put("shared.example", "A", "127.0.0.2")
    with Awkward(host="127.0.0.2", port=by_mx.port) as peer:
        server, bounce = by_mx()
        for sender in ("ann@a.example", "ann@b.example"):
            message_id = bounce(sender)
            wait_for(lambda key=message_id: server.bounce(key).state == "delivered")
        assert peer.sessions == 1


def test_a_domain_that_does_not_answer_is_blocked_and_probed(by_mx, dns, clock):
    """One attempt for all that waits; when the domain is back, all of it arrives."""
    put_domain(dns, "a.example", "127.0.0.2")
    server, bounce = by_mx()
    first = bounce("ann@a.example")
    wait_for(lambda: server.bounce(first).attempts == 1)
    others = [bounce("ann@a.example") for _ in range(5)]
    (blocked,) = destinations(server).values()
    assert (blocked.domain, blocked.waiting, blocked.failures) == ("a.example", 6, 1)
    assert timedelta(seconds=48) <= blocked.blocked_until - clock.now() <= timedelta(seconds=72)
    clock.advance(timedelta(seconds=73))
    wait_for(lambda: destinations(server)["a.example"].failures == 2)
    tried = [server.run(_show(server, key)).attempts for key in (first, *others)]
    assert sum(tried) == 2
    with Listener(host="127.0.0.2", port=by_mx.port) as back:
        clock.advance(timedelta(seconds=145))
        for _ in range(6):
            back.next()
        wait_for(lambda: not destinations(server))


async def _show(server, message_id):
    return (await server.app.store.read(FindOutboxMessage("000000000000", message_id)))[0]


def test_a_dead_domain_does_not_hold_the_others(by_mx, dns, clock):
    put_domain(dns, "dead.example", "127.0.0.4")
    put_domain(dns, "good.example", "127.0.0.2")
    with (
        Awkward("greeting", Awkward.stall, host="127.0.0.4", port=by_mx.port) as dead,
        Listener(host="127.0.0.2", port=by_mx.port) as good,
    ):
        server, bounce = by_mx(delivery_connections="4")
        for _ in range(20):
            bounce("ann@dead.example")
        for _ in range(10):
            bounce("ann@good.example")
        for _ in range(10):
            good.next()
        assert dead.sessions == 1


def test_a_domain_that_refuses_everything_is_blocked(by_mx, dns):
    """Policy says no to five messages; the others wait instead of being lost."""
    put_domain(dns, "a.example", "127.0.0.2")
    refusal = lambda _: b"554 5.7.1 your address is on a list\r\n"  # noqa: E731
    with Awkward("MAIL", refusal, host="127.0.0.2", port=by_mx.port):
        server, bounce = by_mx()
        sent = [bounce("ann@a.example") for _ in range(12)]
        wait_for(lambda: any(entry.failures for entry in destinations(server).values()))
        states = [server.run(_show(server, key)).state.value for key in sent]
    assert states.count("failed") >= 5
    found = destinations(server)["a.example"]
    assert found.waiting == states.count("queued") > 0
    assert found.reason == "554 5.7.1 your address is on a list"


def test_unknown_users_block_nobody(by_mx, dns):
    put_domain(dns, "a.example", "127.0.0.2")
    refusal = lambda _: b"550 5.1.1 no such user\r\n"  # noqa: E731
    with Awkward("RCPT", refusal, host="127.0.0.2", port=by_mx.port):
        server, bounce = by_mx()
        sent = [bounce("ann@a.example") for _ in range(12)]
        wait_for(lambda: all(server.run(_show(server, k)).state == "failed" for k in sent))
    assert destinations(server) == {}


def test_greylisting_is_retried_when_the_server_says(by_mx, dns, clock):
    put_domain(dns, "a.example", "127.0.0.2")
    answers = [b"450 4.2.0 Greylisted, please try again in 300 seconds\r\n", b"250 2.1.5 ok\r\n"]
    with Awkward("RCPT", lambda _: answers.pop(0), host="127.0.0.2", port=by_mx.port):
        server, bounce = by_mx()
        found = server.bounce(bounce("ann@a.example"))
        assert found.due_at == clock.now() + timedelta(seconds=300)
        clock.advance(timedelta(seconds=301))
        wait_for(lambda: server.bounce(found.message_id).state == "delivered")
