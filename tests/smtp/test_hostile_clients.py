"""Clients that use up connections, drip, stall or guess: their replies, and service to others."""

import select
import smtplib
import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from sendback.smtp.scheduling import ConcurrencyLimit, Scheduler
from tests.partners.clients import MAIL
from tests.partners.waiting import wait_for

BEGIN = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"


class Client:
    """A connection that sends octets as they are and reads lines."""

    def __init__(self, server, address="127.0.0.1"):
        target = ("127.0.0.1", server.smtp_port)
        self.socket = socket.create_connection(target, 20, source_address=(address, 0))
        self._lines = self.socket.makefile("rb")

    def send(self, octets):
        self.socket.sendall(octets)

    def read(self):
        """A reply's last line; empty at the end."""
        try:
            line = self._lines.readline()
            while line[3:4] == b"-":
                line = self._lines.readline()
        except ConnectionError:
            return b""
        return line

    def begin_content(self):
        assert self.read().startswith(b"220")
        self.send(BEGIN)
        assert [self.read()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]

    def close(self):
        self._lines.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# --- connection limits ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state", [b"", b"EHLO x\r\n", b"EHLO x\r\nMAIL FROM:<>\r\n", BEGIN, BEGIN + b"half a mail"]
)
def test_the_network_with_most_connections_loses_one_to_another_network(receiver, state):
    server = receiver(smtp_max_connections="4", smtp_max_client_connections="4")
    with ExitStack() as stack:
        greedy = [stack.enter_context(Client(server, "127.0.1.1")) for _ in range(4)]
        for client in greedy:
            assert client.read().startswith(b"220")
            client.send(state)
            for _ in range(state.count(b"\r\n")):
                client.read()
        other = stack.enter_context(Client(server, "127.0.1.2"))
        assert other.read().startswith(b"220")
        (evicted,), _, _ = select.select([client.socket for client in greedy], [], [], 20)
        assert evicted.recv(1000).startswith(b"421")
        assert evicted.recv(1000) == b""
        other.send(BEGIN)
        assert [other.read()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
        other.send(MAIL + b".\r\n")
        assert other.read().startswith(b"250 2.6.0")


def test_many_clients_of_one_network_do_not_shut_out_others(receiver):
    server = receiver(smtp_max_connections="20", smtp_max_client_connections="20")
    with ExitStack() as stack:
        many = [stack.enter_context(Client(server, "127.0.1.1")) for _ in range(60)]
        for client in many:  # the server has decided on each of them
            assert client.read()[:3] in {b"220", b"421"}
        for number in range(2, 12):
            client = stack.enter_context(Client(server, f"127.0.1.{number}"))
            assert client.read().startswith(b"220")
            client.send(b"NOOP\r\n")
            assert client.read().startswith(b"250")
        assert server.send_mail()


def test_a_network_at_its_fair_share_takes_no_connection_from_another(receiver):
    server = receiver(smtp_max_connections="2", smtp_max_client_connections="2")
    with Client(server, "127.0.1.1") as a, Client(server, "127.0.1.2") as b:
        assert a.read().startswith(b"220")
        assert b.read().startswith(b"220")
        with Client(server, "127.0.1.2") as more:
            assert more.read().startswith(b"421")
        for client in (a, b):
            client.send(b"NOOP\r\n")
            assert client.read().startswith(b"250")


# --- time -------------------------------------------------------------------------------------


def drip(client, octets, seconds=10.0):
    """Send an octet now and then, until the other side has said something."""
    deadline = time.monotonic() + seconds
    client.socket.settimeout(0.1)
    for octet in octets:
        try:
            client.send(bytes([octet]))
            if (found := client.socket.recv(4096)) or time.monotonic() > deadline:
                return found
        except TimeoutError:
            continue
        except ConnectionError:
            return b""
    raise AssertionError("it was never disconnected")


@pytest.mark.parametrize("octets", [b"a" * 500, b"NOOP " + b"x" * 500, b"\x00" * 500])
def test_a_client_that_drips_a_command_is_disconnected(receiver, octets):
    server = receiver(smtp_idle_timeout="1s")
    with Client(server) as client:
        client.read()
        assert drip(client, octets).startswith(b"421 4.4.2")
    wait_for(lambda: not server.app.smtp.connections, seconds=5)
    assert server.send_mail()


@pytest.mark.parametrize("octets", [b"a" * 500, b"\r\n" * 250, b"X: y\r\n" * 100])
def test_a_client_that_drips_content_is_disconnected_and_nothing_is_stored(receiver, octets):
    server = receiver(smtp_idle_timeout="1s")
    with Client(server) as client:
        client.begin_content()
        assert drip(client, octets).startswith(b"421 4.4.2")
    spool = server.app.store.contents.spool_directory
    assert not any(spool.iterdir())
    assert server.send_mail()


@pytest.mark.parametrize("command", [b"NOOP\r\n", b"RSET\r\n", b"EHLO x\r\n", b"VRFY bob\r\n"])
def test_commands_outside_a_transaction_are_limited(receiver, command):
    server = receiver()
    with Client(server) as client:
        assert client.read().startswith(b"220")
        client.send(command * 300)
        replies = []
        while reply := client.read():
            replies.append(reply)
        assert replies[-1].startswith(b"421")
        assert len(replies) == 201
        assert not any(reply.startswith(b"421") for reply in replies[:-1])


def test_a_message_resets_the_command_count(receiver):
    server = receiver()
    with smtplib.SMTP("127.0.0.1", server.smtp_port) as smtp:
        for _ in range(3):
            for _ in range(150):
                assert smtp.noop()[0] == 250
            smtp.sendmail("ann@sender.example", "bob@example.com", MAIL.decode())


# --- TLS --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"\x16\x03\x01", b"\x16\x03\x01\xff\xff" + b"\x00" * 99],
)
def test_a_handshake_that_stalls_is_ended_and_others_are_served(receiver, octets):
    server = receiver(smtp_idle_timeout="1s")
    with Client(server) as client:
        client.read()
        client.send(b"STARTTLS\r\n")
        assert client.read().startswith(b"220")
        client.send(octets)
        assert server.send_mail()
        # No reply in clear: the client waits for TLS.
        assert b"421" not in client.read()
    wait_for(lambda: not server.app.smtp.connections, seconds=5)


def hand_shaking(server, count, failures):
    """STARTTLS again and again, with the ClientHello directly behind the 220."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _ in range(count):
        try:
            with Client(server) as client:
                client.read()
                client.send(b"STARTTLS\r\n")
                client.read()
                with context.wrap_socket(client.socket) as secure:
                    secure.sendall(b"NOOP\r\n")
                    assert secure.recv(1000).startswith(b"250")
        except (OSError, AssertionError) as error:
            failures.append(error)


def test_no_handshake_hangs_while_mail_comes_in(receiver):
    server = receiver()
    failures = []
    clients = [
        threading.Thread(target=hand_shaking, args=(server, 250, failures)) for _ in range(8)
    ]
    for client in clients:
        client.start()
    sent = 0
    while any(client.is_alive() for client in clients):
        assert server.send_mail()
        sent += 1
    assert failures == []
    assert sent > 0


# --- memory for each client -------------------------------------------------------------------


@contextmanager
def unfinished(server, count, octets):
    """So many clients in the middle of their content, each from an address of its own."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Client(server, f"127.0.2.{n % 250 + 1}")) for n in range(count)
        ]
        for client in clients:
            client.begin_content()
            client.send(octets)
        yield clients


def test_content_beyond_the_memory_budget_goes_to_files_and_is_kept_whole(receiver):
    """64 MiB of content that comes in are kept in memory."""
    server = receiver(smtp_max_size=str(2**20))
    body = b"".join(b"%074d\r\n" % n for n in range(3200))  # under 256 KiB
    with unfinished(server, 300, b"X: y\r\n\r\n" + body) as clients:
        for client in clients:
            client.send(b".\r\n")
        ids = [client.read().split()[2].decode() for client in clients]
    assert len(set(ids)) == 300
    for message_id in ids:
        assert server.content(message_id).endswith(b"\r\n\r\n" + body)


def test_a_client_that_guesses_addresses_is_delayed_and_others_are_not(receiver):
    server = receiver()
    guesses = b"".join(b"RCPT TO:<u%d@other.example>\r\n" % n for n in range(14))
    with Client(server) as client:
        client.read()
        client.send(b"EHLO x\r\nMAIL FROM:<>\r\n" + guesses)
        replies = [client.read()[:9] for _ in range(12)]
        assert replies[2:] == [b"550 5.1.1"] * 10
        # The eleventh waits; meanwhile another client is served.
        client.socket.setblocking(False)
        assert server.send_mail()
        client.socket.settimeout(20)
        assert [client.read()[:9] for _ in range(4)] == [b"550 5.1.1"] * 4


# --- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [b"", b"EHLO x\r\nMAIL FROM:<>\r\n", BEGIN + b"half a mail"])
def test_clients_get_421_when_the_server_stops(receiver, state):
    server = receiver()
    with Client(server) as client:
        assert client.read().startswith(b"220")
        client.send(state)
        for _ in range(state.count(b"\r\n")):
            client.read()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert client.read().startswith(b"421 4.3.2")
        assert client.read() == b""
        stopping.join()


# --- scheduling and concurrency ---------------------------------------------------------------


class Work:
    """A worker with a number of slices of work, which may raise."""

    def __init__(self, scheduler, slices, log, cost=10, breaks=False):
        self.scheduler, self.slices, self.log, self.cost = scheduler, slices, log, cost
        self.breaks, self.broken = breaks, None

    def run_slice(self):
        if self.breaks:
            raise ValueError("broken")
        self.log.append(self)
        self.slices -= 1
        if self.slices:
            self.scheduler.queue(self)
        return self.cost

    def fail(self, error):
        self.broken = error


class Timer:
    """Replaces `loop.call_later`; the test lets the time pass."""

    def __init__(self):
        self.calls = []

    def call_later(self, seconds, call):
        assert seconds > 0  # the others, and the store's threads, get in between
        self.calls.append(call)

    def pass_once(self):
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def played(scheduler, timer, works):
    for work in works:
        scheduler.queue(work)
    rounds = 0
    while timer.calls:
        timer.pass_once()
        rounds += 1
    return rounds


def test_workers_run_round_robin_until_all_is_done():
    timer, log = Timer(), []
    scheduler = Scheduler(timer.call_later)
    works = [Work(scheduler, slices, log) for slices in (3, 1, 2)]
    played(scheduler, timer, works)
    assert log == [works[0], works[1], works[2], works[0], works[2], works[0]]


def test_a_batch_is_bounded():
    timer, log = Timer(), []
    scheduler = Scheduler(timer.call_later)
    works = [Work(scheduler, 1, log, cost=50) for _ in range(10)]
    assert played(scheduler, timer, works) == 5  # 100 units a round
    assert log == works


def test_a_worker_that_raises_does_not_stop_the_others():
    timer, log = Timer(), []
    scheduler = Scheduler(timer.call_later)
    works = [Work(scheduler, 2, log), Work(scheduler, 2, log, breaks=True), Work(scheduler, 2, log)]
    played(scheduler, timer, works)
    assert log == [works[0], works[2]] * 2
    assert isinstance(works[1].broken, ValueError)


def test_used_units_count_for_one_round_of_the_loop():
    scheduler = Scheduler(Timer().call_later)
    assert scheduler.has_capacity(1.0)
    scheduler.used += 300
    assert not scheduler.has_capacity(1.0)
    assert scheduler.has_capacity(1.001)


def test_the_concurrency_limit_admits_up_to_its_capacity_in_order():
    import asyncio

    async def run():
        limit, order = ConcurrencyLimit(2), []

        async def guest(number, stays):
            if not limit.try_acquire():
                await limit.acquire()
            order.append(number)
            await stays.wait()
            limit.release()

        stays = [asyncio.Event() for _ in range(6)]
        tasks = [asyncio.create_task(guest(n, stays[n])) for n in range(6)]
        await asyncio.sleep(0)
        assert order == [0, 1]
        tasks[2].cancel()  # while it waits
        stays[0].set()
        await asyncio.sleep(0)
        tasks[3].cancel()  # after it was given a slot
        for event in stays:
            event.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order in ([0, 1, 4, 5], [0, 1, 3, 4, 5])
        assert limit.try_acquire()
        assert limit.try_acquire()
        assert not limit.try_acquire()

    asyncio.run(run())
