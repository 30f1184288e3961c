"""What HTTP connections may cost: header sections, bodies, time, places, memory, log lines."""

import contextlib
import logging
import select
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendback.api import connections
from tests.partners.postgresql import write_lock
from tests.partners.raw_http import HEALTH, RawHttp, is_healthy
from tests.partners.waiting import wait_for

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def port(running):
    return running().addresses.http.port


def refusal(port, data):
    """The answer to it: it is in SES's form, and the last one on its connection."""
    with RawHttp(port, data) as client:
        reply = client.reply()
        assert reply.headers["connection"] == "close"
        assert client.is_closed()
    assert is_healthy(port)
    return reply.status, reply.code


# --- the header section -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"a: b\r\n" * 500_000,
        b"x-amz-date: b\r\n" * 201,
        b"".join(b"x-%d: b\r\n" % number for number in range(201)),
        b"a: " + b"b" * 16_384 + b"\r\n",
        b"a" * 16_384 + b": b\r\n",
        (b"a: " + b"b" * 16_000 + b"\r\n") * 5,
        b"a: " + b" " * 2**21,
        b"a: " + b"b" * 2**21,
        b"b" * 2**21,
        b"authorization: " + b"," * 100_000 + b"\r\n",
    ],
    ids=["one name", "201", "201 names", "long", "long name", "in all", "blanks", "no end", "name",
         "commas"],
)  # fmt: skip
def test_a_header_section_is_bounded(port, head):
    assert refusal(port, b"GET / HTTP/1.1\r\n" + head + b"\r\n") == (431, "MalformedHttpRequest")


def test_it_may_have_two_hundred_fields_and_come_octet_by_octet(port):
    fields = b"".join(b"x-%d: b\r\n" % number for number in range(199))
    with RawHttp(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n") as client:
        assert client.reply().status == 200
        for octet in HEALTH:
            client.send(bytes([octet]))
        assert client.reply().status == 200


def test_a_request_has_one_host(port):
    """RFC 9112 §3.2; whoever is in front may have believed the other one."""
    head = b"GET /healthz HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n"
    assert refusal(port, head) == (400, "MalformedHttpRequest")


def test_a_request_target_is_bounded(port):
    assert refusal(port, b"GET /?" + b"a" * 32_768) == (414, "MalformedHttpRequest")
    with RawHttp(port, b"GET /?" + b"a" * 32_000 + b" HTTP/1.1\r\n\r\n") as client:
        assert (found := client.reply()).status == 404, found
        assert found.code == "MalformedQueryString"


@pytest.mark.parametrize("query", [b"a=&" * 10_000, b"%41=1&" * 5_000, b"+=+&" * 8_000, b"&" * 99])
def test_a_query_string_has_at_most_two_thousand_parameters(port, query):
    with RawHttp(port, b"GET /?" + query + b"a=b HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        assert client.reply().code == "MalformedQueryString"


# --- what is no request ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"EHLO there\r\n",
        b"FROB / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nna me: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nname : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nname: a\x00b\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        POST + b"Content-Length: -5\r\n\r\n",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\n",
    ],
)
def test_what_is_no_http_is_refused_in_ses_s_form(port, data):
    assert refusal(port, data) == (400, "MalformedHttpRequest")


@pytest.mark.parametrize("method", [b"PATCH", b"OPTIONS", b"TRACE", b"LOCK"])
def test_another_method_is_not_allowed(port, method):
    with RawHttp(port, method + b" / HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        reply = client.reply()
        assert (reply.status, reply.code) == (405, "MalformedHttpRequest")
        assert reply.headers["allow"] == "get, head, post, put, delete"


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://elsewhere.example/healthz HTTP/1.1\r\n",
        b"GET /healthz?x=%00 HTTP/1.1\r\nHost: [\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a/b?c#d\r\n",
        b"GET /healthz HTTP/1.0\r\n",
        b"GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
        b"GET /healthz HTTP/1.1\r\nExpect: 100-continue\r\n",
        b"GET /healthz HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n",
    ],
)
def test_odd_requests_are_served_all_the_same(port, head):
    with RawHttp(port, head + b"\r\n") as client:
        assert client.reply().status == 200
    assert is_healthy(port)


@pytest.mark.parametrize("path", [b"/healthz/", b"//healthz", b"/%00", b"*", b"/x"])
def test_other_paths_are_not_found_and_redirect_nowhere(port, path):
    request = b"GET " + path + b" HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    with RawHttp(port, request) as client:
        reply = client.reply()
        assert reply.status in {400, 404}
        assert "location" not in reply.headers


@pytest.mark.parametrize("host", [b"[", b"a/b?c", b"\xff\xfe", b"a" * 9000])
def test_no_host_header_breaks_the_api(port, host):
    with RawHttp(port, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") as client:
        assert client.reply().code == "MissingAuthenticationToken"


def test_requests_that_do_not_wait_for_answers_are_bounded_and_answered_in_order(port):
    with RawHttp(port, HEALTH * 5 + b"GET /x HTTP/1.1\r\n\r\n") as client:
        assert [client.reply().status for _ in range(6)] == [200] * 5 + [404]
    with RawHttp(port, HEALTH * 14_000) as client:
        answers = client.read_all()
    assert answers.count(b"HTTP/1.1 200 OK") == connections.MAX_PIPELINED
    assert answers.endswith(b"ok\n")
    assert is_healthy(port)


def test_what_follows_a_request_and_is_none_does_not_hurt_its_answer(port):
    with RawHttp(port, HEALTH + b"\x16\x03\x01garbage\r\n\r\n") as client:
        answers = client.read_all()
    assert answers.startswith(b"HTTP/1.1 200 OK")
    assert answers.count(b"HTTP/1.1") == 1


# --- bodies ------------------------------------------------------------------------------------


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(port):
    head = POST + b"Expect: 100-continue\r\nContent-Length: 2097153\r\n\r\n"
    assert refusal(port, head) == (413, "RequestEntityTooLarge")


def test_one_that_was_not_announced_is_refused_when_it_is(port):
    chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert refusal(port, head + chunk * 2 + b"1\r\nx\r\n") == (413, "RequestEntityTooLarge")


def test_the_client_reads_the_refusal_though_it_goes_on_sending(port):
    with RawHttp(port, POST + b"Content-Length: 1000000000\r\n\r\n") as client:
        client.send(b"x" * 2**22)
        assert client.reply().status == 413


def test_many_small_chunks_are_refused(port):
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert refusal(port, head + b"1\r\nx\r\n" * 5000) == (400, "MalformedHttpRequest")
    with RawHttp(port, head + b"1\r\nx\r\n" * 4000 + b"0\r\n\r\n") as client:
        assert client.reply().code == "MissingAuthenticationToken"


def test_trailer_fields_are_no_header_fields_and_are_counted(port):
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    with RawHttp(port, head + b"Authorization: x\r\n\r\n") as client:
        assert client.reply().code == "MissingAuthenticationToken"
    assert refusal(port, head + b"a: b\r\n" * 500)[0] == 431


@pytest.mark.parametrize(
    "endless",
    [b"0\r\na: ", b"0\r\n", b"0\r\na: b\r\na: ", b"1\r\nx\r\n1;", b'1;a="', b"0" * 9, b""],
    ids=["value", "name", "second", "extension", "quoted", "zeros", "size"],
)
def test_what_is_between_the_octets_of_a_body_is_bounded(port, endless):
    filler = b"0" if endless[-1:] in {b"0", b""} else b"a"
    data = POST + b"Transfer-Encoding: chunked\r\n\r\n" + endless
    assert refusal(port, data + filler * 2**21) == (431, "MalformedHttpRequest")


def test_a_chunked_body_in_small_packets_is_read(port):
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    with RawHttp(port, head) as client:
        for _ in range(8):
            client.send(b"1;e=" + b"x" * 20_000)
            client.send(b"\r\na\r\n")
        client.send(b"0\r\nt: " + b"x" * 10_000)
        client.send(b"\r\n\r\n")
        assert client.reply().code == "MissingAuthenticationToken"


def test_the_body_of_a_get_does_not_matter(port):
    with RawHttp(port, b"GET /healthz HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc") as client:
        assert client.reply().status == 200
        client.send(HEALTH)
        assert client.reply().status == 200


def test_an_answer_that_does_not_wait_for_the_body_ends_the_connection(port):
    with RawHttp(port, b"GET /healthz HTTP/1.1\r\nContent-Length: 2000000\r\n\r\nabc") as client:
        assert client.reply().status == 200
        client.send(b"x" * 1000)
        assert client.is_closed()


def test_a_client_that_goes_away_in_the_middle_leaves_no_trace(running, caplog):
    server = running()
    for path in (b"/", b"/verify"):
        head = b"POST " + path + b" HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"
        RawHttp(server.addresses.http.port, head).close()
    assert is_healthy(server.addresses.http.port)
    wait_for(lambda: not server.app.http_limits.bodies.total)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


PIECES = [
    HEALTH,
    POST + b"Content-Length: 3\r\n\r\nabc",
    POST + b"Content-Length: 100\r\n\r\nabc",
    POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET /verify?t=x HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    b"HEAD / HTTP/1.1\r\n\r\n",
    b"\r\n",
    b"a: b\r\n" * 300,
    b"x" * 70_000,
    b"\x00\xff",
]


def test_any_octets_in_any_pieces_leave_nothing_behind(running, caplog):
    server = running(http_body_timeout="1s")
    port = server.addresses.http.port

    # By number: Hypothesis would warn of the length of such a strategy's description.
    piece = st.sampled_from(range(len(PIECES))).map(lambda number: PIECES[number])

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(piece | st.binary(max_size=30), min_size=1, max_size=8),
        st.integers(1, 2000),
        st.booleans(),
    )
    def send(pieces, size, waits):
        data = b"".join(pieces)
        with RawHttp(port) as client:
            for start in range(0, len(data), max(size, len(data) // 50)):
                client.send(data[start : start + max(size, len(data) // 50)])
            if waits:
                client.socket.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    client.read_all()

    send()
    limits = server.app.http_limits
    wait_for(lambda: not len(limits.register) and not limits.bodies.total)
    assert is_healthy(port)
    assert [r for r in caplog.records if r.levelno >= logging.ERROR or r.exc_info] == []


# --- time --------------------------------------------------------------------------------------


def test_each_part_of_a_request_has_its_time(running):
    server = running(http_header_timeout="1s", http_body_timeout="1s", http_idle_timeout="1s")
    port = server.addresses.http.port
    with RawHttp(port) as silent, RawHttp(port, HEALTH) as idle:
        assert silent.is_closed()
        assert idle.reply().status == 200
        assert idle.is_closed()
    assert refusal(port, b"GET / HT") == (408, "RequestTimeout")
    assert refusal(port, b"\r\n") == (408, "RequestTimeout")
    assert refusal(port, POST + b"a: b\r\n") == (408, "RequestTimeout")
    assert refusal(port, POST + b"Content-Length: 9\r\n\r\nx") == (408, "RequestTimeout")
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    assert refusal(port, chunked) == (408, "RequestTimeout")


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\na: ", POST + b"Content-Length: 9999\r\n\r\n", b"\r\n"]
)
def test_drops_of_data_do_not_lengthen_it(running, head):
    server = running(http_header_timeout="1s", http_body_timeout="1s")
    with RawHttp(server.addresses.http.port, head) as client:
        dripping = threading.Event()

        def drip():
            while not dripping.wait(0.02):
                client.send(b"\r\n" if head == b"\r\n" else b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert client.reply().status == 408
        finally:
            dripping.set()
            thread.join()


def test_an_idle_connection_gets_its_time_again_with_each_request(running):
    server = running(http_idle_timeout="1s", http_header_timeout="1s")
    with RawHttp(server.addresses.http.port) as client:
        for _ in range(4):
            client.send(HEALTH)
            assert client.reply().status == 200
            time.sleep(0.5)


def test_an_answer_that_nobody_takes_is_dropped(running):
    """Five megabytes of rules, eight times over, for a client that reads none of it."""
    server = running(http_body_timeout="1s", check_targets="false")
    recipients = [f"{'x' * 60}{number}@{'d' * 60}.{'e' * 60}.example" for number in range(400)]
    rule = f'[[rule_sets.big.rules]]\nName = "r%d"\nRecipients = {recipients}\n'
    server.set_up("\n".join(rule % number for number in range(60)).replace("'", '"'))
    url = server.ses.generate_presigned_url(
        "describe_receipt_rule_set", {"RuleSetName": "big"}, HttpMethod="GET"
    )
    target = url.removeprefix(server.endpoint)
    request = f"GET {target} HTTP/1.1\r\nHost: {server.addresses.http}\r\n\r\n".encode()
    register = server.app.http_limits.register
    with RawHttp(server.addresses.http.port, request * 8):
        wait_for(lambda: len(register) == 1)
        wait_for(lambda: len(register) == 0, 20)
    assert is_healthy(server.addresses.http.port)


# --- places ------------------------------------------------------------------------------------


def test_one_address_cannot_hold_all_places(running):
    server = running(http_max_connections="20")
    port = server.addresses.http.port
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(RawHttp(port, source="127.0.0.2")) for _ in range(20)]
        wait_for(lambda: len(server.app.http_limits.register) == 20)
        others = [stack.enter_context(RawHttp(port, HEALTH, "127.0.0.3")) for _ in range(5)]
        assert [other.reply().status for other in others] == [200] * 5
        assert all(client.is_closed() for client in first[:5])
        assert len(server.app.http_limits.register) == 20


def test_a_client_that_is_at_its_limit_replaces_its_longest_idle_connection(running):
    server = running(http_max_client_connections="10")
    port = server.addresses.http.port
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawHttp(port, HEALTH)) for _ in range(10)]
        assert {client.reply().status for client in clients} == {200}
        late = stack.enter_context(RawHttp(port, HEALTH))
        reply = late.reply()  # all of them were active less than a second ago
        assert (reply.status, reply.code) == (503, "ServiceUnavailable")
        assert reply.headers["retry-after"] == "1"
        time.sleep(connections.MIN_IDLE)
        assert stack.enter_context(RawHttp(port, HEALTH)).reply().status == 200
        assert clients[0].is_closed()


def test_a_request_that_is_being_answered_is_not_closed_for_another(running):
    server = running(http_max_connections="3")
    port = server.addresses.http.port
    lock = contextlib.ExitStack()
    lock.enter_context(write_lock(server.settings.database_url))  # /readyz waits for it
    request = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(RawHttp(port, request, "127.0.0.2")) for _ in range(3)]
        time.sleep(connections.MIN_IDLE + 0.2)
        assert stack.enter_context(RawHttp(port, HEALTH)).reply().status == 503
        lock.close()
        assert [client.reply().status for client in busy] == [200] * 3


def test_fifty_clients_of_one_address_at_once(server):
    def calls(_):
        client = server.ses
        return [client.list_identities()["Identities"] for _ in range(4)]

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(calls, range(50))) == [[["example.com"]] * 4] * 50


# --- memory ------------------------------------------------------------------------------------


def test_unfinished_bodies_share_a_budget_and_small_requests_do_not_need_it(running):
    server = running()
    port = server.addresses.http.port
    head = POST + b"Content-Length: 2097152\r\n\r\n"
    bodies = server.app.http_limits.bodies
    with contextlib.ExitStack() as stack:
        large = []
        for _ in range(20):
            client = stack.enter_context(RawHttp(port, head, "127.0.0.2"))
            client.send(b"x" * (2**21 - 1))
            large.append(client)
        # Which of equals is the largest depends on whose octets came first.
        answered, _, _ = select.select([client.socket for client in large], [], [], 20)
        refused = [client for client in large if client.socket in answered]
        assert refused[0].reply().code == "ServiceUnavailable"
        wait_for(lambda: bodies.total > connections.MAX_BODIES - 2**22)
        assert bodies.total <= connections.MAX_BODIES
        body = urlencode({"Action": "ListIdentities", "Version": "2010-12-01"}).encode()
        small = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
        with RawHttp(port, small, "127.0.0.2") as client:
            assert client.reply().code == "MissingAuthenticationToken"
        with RawHttp(port, head, "127.0.0.3") as client:  # and one below its share is served
            client.send(b"x" * 2**21)
            assert client.reply().code == "MissingAuthenticationToken"
    wait_for(lambda: bodies.total == 0)


# --- the log -----------------------------------------------------------------------------------


def test_a_flood_of_bad_requests_is_a_few_log_lines(port, caplog):
    begun = time.monotonic()
    for _ in range(200):
        with RawHttp(port, b"\x16\x03\x01\r\n\r\n") as client:
            assert client.reply().status == 400
    seconds = time.monotonic() - begun
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= len(lines) <= seconds + 2
    assert lines[0].startswith("http_refused client=127.0.0.1 reason=")
