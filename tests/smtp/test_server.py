"""The transport, by real clients over real sockets."""

import smtplib
import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from sendback.store.engine.content.model import ContentGoneError
from sendback.store.messages.messages import FindBody, FindMessage
from tests.partners.clients import MAIL
from tests.partners.postgresql import write_lock
from tests.partners.waiting import wait_for

ACCOUNT = "000000000000"


@contextmanager
def line(server):
    """A connection that sends octets as they are and reads lines."""
    with socket.create_connection(("127.0.0.1", server.smtp_port), timeout=20) as connection:
        with connection.makefile("rwb", buffering=0) as file:
            yield file


def content_of(server, message_id):
    message = server.run(server.app.store.read(FindMessage(ACCOUNT, message_id)))
    body = server.run(server.app.store.read(FindBody(ACCOUNT, message_id)))
    return message, body, server.content(message_id)


def test_what_was_received_is_kept_octet_for_octet_under_its_trace(receiver):
    server = receiver()
    message, body, content = content_of(server, server.send_mail())
    assert body.blob is None
    assert content.endswith(MAIL)
    assert content.startswith(b"Return-Path: <ann@sender.example>\r\nReceived: from mx.sender.")
    assert message.size == len(content)


def test_a_large_message_goes_to_the_blob_store(receiver):
    server = receiver()
    large = MAIL + b"x" * 70 + b"\r\n" + (b"y" * 998 + b"\r\n") * 2000
    message, body, content = content_of(server, server.send_mail(content=large))
    assert body.blob
    assert content.endswith(large)
    assert message.size == len(content)
    assert message.header.endswith(b"Message-ID: <lunch@sender.example>\r\n")


async def read_blob(store, blob):
    stored = await store.contents.body(blob, 1)
    with stored.open() as file:
        return file.read()


def test_large_content_is_removed_when_it_expires(receiver, clock):
    from datetime import timedelta

    server = receiver()
    _, body, _ = content_of(server, server.send_mail(content=MAIL + (b"y" * 998 + b"\r\n") * 300))
    clock.advance(timedelta(hours=25))
    server.run(server.app.housekeeping.sweep())
    with pytest.raises(ContentGoneError):
        server.run(read_blob(server.app.store, body.blob))


def test_a_header_section_that_no_bounce_could_return_is_refused(receiver):
    server = receiver()
    with pytest.raises(AssertionError, match="header section is too large"):
        server.send_mail(content=b"X-A: " + b"x" * 500 + b"\r\n" + b"X-B: y\r\n" * 200_000)
    with pytest.raises(AssertionError, match="header section is too large"):
        server.send_mail(content=b"X-A: x" + b"\r\n y" * 200_000 + b"\r\n\r\n")
    with pytest.raises(AssertionError, match="header section is too large"):
        server.send_mail(content=b"x" * 400_000 + b": y\r\n\r\n")
    assert server.send_mail(content=b"no header\r\n" * 40_000)
    assert server.send_mail(content=b"X-A: y\r\n" * 30_000 + b"\r\n" + b"z\r\n" * 100_000)


def test_starttls_by_a_real_client(receiver):
    server = receiver()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", server.smtp_port) as smtp:
        smtp.ehlo()
        assert smtp.has_extn("starttls")
        smtp.starttls(context=context)
        smtp.ehlo()
        assert not smtp.has_extn("starttls")
        smtp.mail("ann@sender.example")
        smtp.rcpt("bob@example.com")
        reply = smtp.data(MAIL)[1]
    message, _, _ = content_of(server, reply.decode().split()[1])
    assert message.envelope.client.tls == "TLSv1.3"


def test_commands_in_clear_behind_starttls_are_not_run(receiver):
    """CVE-2011-0411, on a real connection: in the same packet as STARTTLS."""
    server = receiver()
    injected = b"MAIL FROM:<x@y.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nforged\r\n.\r\n"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", server.smtp_port), timeout=20) as connection:
        connection.recv(1000)
        connection.sendall(b"EHLO x\r\n")
        connection.recv(1000)
        connection.sendall(b"STARTTLS\r\n" + injected)
        assert connection.recv(1000) == b"220 2.0.0 Ready to start TLS\r\n"
        with context.wrap_socket(connection) as secure:
            secure.sendall(b"NOOP\r\n")
            assert secure.recv(1000) == b"250 2.0.0 Ok\r\n"
            secure.sendall(b"DATA\r\n")
            assert secure.recv(1000).startswith(b"503")


def test_a_command_in_the_same_packet_as_the_end_of_the_handshake_is_answered(receiver):
    """TLS 1.3 lets a client speak as soon as it has sent its Finished."""
    server = receiver()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _ in range(20):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = context.wrap_bio(incoming, outgoing)
        with socket.create_connection(("127.0.0.1", server.smtp_port), timeout=5) as connection:
            connection.recv(1000)
            connection.sendall(b"STARTTLS\r\n")
            assert connection.recv(1000).startswith(b"220")
            while True:
                try:
                    secure.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    incoming.write(connection.recv(10000))
            secure.write(b"EHLO mx.sender.example\r\n")
            connection.sendall(outgoing.read())
            while True:
                try:
                    assert secure.read(1000).startswith(b"250-mx.example.com")
                    break
                except ssl.SSLWantReadError:
                    incoming.write(connection.recv(10000))


def deaf_client(server):
    """A client that sends recipients without end and reads no reply to them."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect(("127.0.0.1", server.smtp_port))
    connection.sendall(b"EHLO x\r\nMAIL FROM:<>\r\n")
    connection.setblocking(False)
    return connection


def send_recipients(connection, seconds):
    sent, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            sent += connection.send(b"RCPT TO:<bob@example.com>\r\n" * 2000)
        except BlockingIOError:
            time.sleep(0.01)
    return sent


def test_a_client_that_reads_no_reply_is_disconnected(receiver):
    server = receiver(smtp_idle_timeout="2s", smtp_max_recipients="100000")
    with deaf_client(server) as connection:
        send_recipients(connection, 1)
        assert server.app.smtp.connections
        wait_for(lambda: not server.app.smtp.connections, seconds=10)


def test_a_failed_handshake_ends_the_connection(receiver):
    server = receiver()
    with line(server) as file:
        file.readline()
        file.write(b"STARTTLS\r\n")
        assert file.readline().startswith(b"220")
        file.write(b"this is no handshake\r\n" * 10)
        try:
            rest = file.read()
        except ConnectionResetError:
            rest = b""
        assert b"250" not in rest
    wait_for(lambda: not server.app.smtp.connections, seconds=5)
    assert server.send_mail()


def test_mail_for_other_domains_is_refused_at_rcpt(receiver):
    server = receiver()
    with smtplib.SMTP("127.0.0.1", server.smtp_port) as smtp:
        smtp.ehlo()
        smtp.mail("ann@sender.example")
        assert smtp.rcpt("bob@other.example") == (550, b"5.1.1 No such recipient here")
        assert smtp.rcpt("bob@sub.example.com")[0] == 250  # a domain covers its subdomains
        assert smtp.rcpt("bob@notexample.com")[0] == 550


def test_each_account_gets_its_own_recipients(receiver):
    server = receiver()
    other = server.ses_of("111111111111", "eve")
    other.verify_domain_identity(Domain="other.example")
    message_id = server.send_mail(recipients=("bob@example.com", "eve@other.example"))
    for account, address in ((ACCOUNT, "bob@example.com"), ("111111111111", "eve@other.example")):
        found = server.run(server.app.store.read(FindMessage(account, message_id)))
        assert [str(entry.address) for entry in found.envelope.recipients] == [address]
        assert f"for {address};".encode() in found.header


def test_too_many_connections_of_one_client(receiver):
    server = receiver(smtp_max_client_connections="3")
    with line(server) as a, line(server) as b, line(server) as c:
        for file in (a, b, c):
            assert file.readline().startswith(b"220")
        with line(server) as d:
            assert d.readline().startswith(b"421 4.7.0")
            assert d.readline() == b""
    wait_for(lambda: not server.app.smtp.connections, seconds=5)
    assert len(server.app.smtp.register) == 0
    assert server.send_mail()


def test_too_many_connections_in_all(receiver):
    server = receiver(smtp_max_connections="1")
    with line(server) as a, line(server) as b:
        assert a.readline().startswith(b"220")
        assert b.readline().startswith(b"421")


def test_a_silent_client_is_disconnected(receiver):
    server = receiver(smtp_idle_timeout="1s")
    with line(server) as file:
        file.readline()
        assert file.readline().startswith(b"421 4.4.2")
        assert file.readline() == b""


def test_a_slow_client_that_is_never_silent_is_disconnected(receiver):
    server = receiver(smtp_idle_timeout="1s", smtp_session_timeout="2s")
    with line(server) as file:
        file.readline()
        started = time.monotonic()
        replies = []
        try:
            while time.monotonic() - started < 10:
                file.write(b"NOOP\r\n")
                replies.append(file.readline())
                if not replies[-1].startswith(b"250"):
                    break
                time.sleep(0.2)
        except ConnectionError:
            pass
        assert any(reply.startswith(b"421") or reply == b"" for reply in replies)
        assert time.monotonic() - started < 5


def test_a_locked_database_is_452_and_recovers_by_itself(receiver):
    server = receiver()
    with (
        write_lock(server.settings.database_url),
        pytest.raises(AssertionError, match=r"4\.3\.1"),
    ):
        server.send_mail()
    assert server.send_mail()


def test_a_shutdown_waits_for_the_message_that_is_being_stored(receiver):
    """The client's 250 comes before the 421: what was sent whole is not lost by a restart."""
    server = receiver()
    lock = ExitStack()
    with line(server) as file, line(server) as idle:
        idle.readline()
        file.readline()
        file.write(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
        while not file.readline().startswith(b"354"):
            pass
        lock.enter_context(write_lock(server.settings.database_url))
        file.write(b"\r\nhello\r\n.\r\n")
        time.sleep(0.3)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert idle.readline().startswith(b"421 4.3.2")
        time.sleep(0.2)
        lock.close()
        assert file.readline().startswith(b"250 2.6.0")
        assert file.readline().startswith(b"421 4.3.2")
        stopping.join()


def test_a_disconnect_during_content_stores_nothing(receiver):
    server = receiver()
    with line(server) as file:
        file.readline()
        file.write(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
        while not file.readline().startswith(b"354"):
            pass
        file.write(b"half a mess")
    server.send_mail()
    from sendback.store.messages.messages import ListMessages

    assert len(server.run(server.app.store.read(ListMessages(ACCOUNT, 10)))) == 1


def test_a_client_that_reads_no_replies_does_not_fill_the_memory(receiver):
    server = receiver(smtp_max_recipients="100000")
    with deaf_client(server) as connection:
        sent = send_recipients(connection, 3)
        (session,) = server.app.smtp.connections
        assert session.octets_buffered < 100_000
        assert sent < 50_000_000
    assert server.send_mail()


def test_pipelining_a_whole_session(receiver):
    server = receiver()
    with line(server) as file:
        file.readline()
        file.write(
            b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.com>\r\n"
            b"RCPT TO:<x@other.example>\r\nDATA\r\nhi: x\r\n\r\nhello\r\n.\r\nQUIT\r\n"
        )
        replies = [reply for reply in file.read().splitlines() if reply[3:4] == b" "]
    assert [reply[:3] for reply in replies] == [
        b"250", b"250", b"250", b"550", b"354", b"250", b"221",
    ]  # fmt: skip
