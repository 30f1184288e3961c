"""Delivery through a relay: real listeners, each with its own way to answer."""

import smtplib
import socket
import ssl
import threading
import time
from datetime import timedelta
from email.message import EmailMessage

import pytest
from aiosmtpd.smtp import AuthResult

from sendback.delivery.smtp_transport import SessionCounts
from sendback.dsn import parse
from tests.partners.listener import Listener
from tests.partners.postfix import free_port
from tests.partners.waiting import wait_for

ACCOUNT = "000000000000"


@pytest.fixture
def bouncing(running):
    """A server that relays to the URL; answers it and a function that sends a bounce."""

    def start(url, **flags):
        server = running(send_bounce_rate="0", outbound=url, **flags)
        server.ses.verify_domain_identity(Domain="example.com")

        return server, server.send_bounce

    return start


def test_the_bounce_arrives_with_a_null_reverse_path(bouncing):
    with Listener() as listener:
        server, bounce = bouncing(listener.url)
        message_id = bounce()
        arrived = listener.next()
        assert (arrived.sender, arrived.recipients) == ("", ["ann@sender.example"])
        assert parse(arrived.content).header_value("Message-ID") == f"<{message_id}@mx.example.com>"
        found = server.bounce(message_id)
    assert (found.state, found.last_reply) == ("delivered", "250 2.0.0 Ok")
    (attempt,) = server.attempts(message_id)
    assert (attempt.outcome, attempt.peer) == ("delivered", f"127.0.0.1:{listener.port}")


def test_connections_are_kept(bouncing):
    with Listener() as listener:
        server, bounce = bouncing(listener.url, delivery_connections="1")
        for _ in range(5):
            bounce()
            listener.next()
        wait_for(lambda: server.app.delivery.transport.sessions.kept == 1)


def test_a_temporary_refusal_is_tried_again_and_recorded(bouncing, clock):
    with Listener("451 4.3.0 come back later") as listener:
        server, bounce = bouncing(listener.url)
        message_id = bounce()
        waiting = server.bounce(message_id)
        assert (waiting.state, waiting.attempts) == ("queued", 1)
        assert waiting.last_reply == "451 4.3.0 come back later"
        assert timedelta(seconds=48) <= waiting.due_at - clock.now() <= timedelta(seconds=72)
        clock.advance(timedelta(seconds=73))
        assert listener.next().recipients == ["ann@sender.example"]
        wait_for(lambda: server.bounce(message_id).state == "delivered")
    outcomes = [attempt.outcome for attempt in server.attempts(message_id)]
    assert outcomes == ["temporary", "delivered"]


def test_a_permanent_refusal_is_the_end(bouncing, clock):
    with Listener("550 5.7.1 not from you") as listener:
        server, bounce = bouncing(listener.url)
        failed = server.bounce(bounce())
        assert (failed.state, failed.last_reply) == ("failed", "550 5.7.1 not from you")
        clock.advance(timedelta(hours=5))
        time.sleep(1.2)  # longer than the worker's poll
        assert listener.messages.empty()


def test_a_refused_null_sender_is_never_tried_with_another(bouncing):
    class Picky(Listener):
        async def handle_MAIL(self, server, session, envelope, address, options):
            senders.append(address)
            return "501 5.1.7 null sender refused"

    senders = []
    with Picky() as listener:
        server, bounce = bouncing(listener.url)
        failed = server.bounce(bounce())
    assert (failed.state, failed.last_reply) == ("failed", "501 5.1.7 null sender refused")
    assert senders in ([""], ["<>"])


def test_a_refused_recipient_leaves_the_connection_usable(bouncing):
    class Choosy(Listener):
        async def handle_RCPT(self, server, session, envelope, address, options):
            if address.startswith("gone"):
                return "550 5.1.1 gone"
            envelope.rcpt_tos.append(address)
            return "250 Ok"

    with Choosy() as listener:
        server, bounce = bouncing(listener.url, delivery_connections="1")
        assert server.bounce(bounce(sender="gone@sender.example")).state == "failed"
        wait_for(lambda: server.app.delivery.transport.sessions.kept == 1)
        bounce()
        assert listener.next().recipients == ["ann@sender.example"]


def test_nobody_listening_is_temporary(bouncing):
    server, bounce = bouncing(f"smtp://127.0.0.1:{free_port()}")
    waiting = server.bounce(bounce())
    assert (waiting.state, waiting.attempts) == ("queued", 1)
    assert server.attempts(waiting.message_id)[0].outcome == "temporary"


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"554 5.3.2 not today\r\n",
        b"421 4.3.2 busy\r\n",
        b"this is not SMTP\r\n",
        b"220 hello\r\n",
        b"\xff\xfe\x00\r\n",
        b"220-" + b"x" * 100_000 + b"\r\n" * 1000,
    ],
)
def test_a_peer_that_answers_nonsense_ends_in_a_state_and_frees_its_connection(bouncing, script):
    with socket.create_server(("127.0.0.1", 0)) as peer:

        def answer():
            while True:
                try:
                    connection, _ = peer.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(script)

        threading.Thread(target=answer, daemon=True).start()
        server, bounce = bouncing(f"smtp://127.0.0.1:{peer.getsockname()[1]}")
        found = server.bounce(bounce())
        assert found.attempts == 1
        assert found.state == "queued"
        wait_for(lambda: server.app.delivery.transport.sessions == SessionCounts(0, 0))
        peer.shutdown(socket.SHUT_RDWR)


def test_a_peer_that_says_nothing_times_out_and_is_temporary(bouncing):
    with socket.create_server(("127.0.0.1", 0)) as peer:
        url = f"smtp://127.0.0.1:{peer.getsockname()[1]}"
        server, bounce = bouncing(url, delivery_timeout="1s")
        waiting = server.bounce(bounce())
    assert waiting.state == "queued"
    assert waiting.last_reply == "greeting: no reply within 1 s"


def test_a_kept_connection_that_the_peer_has_closed_costs_no_attempt(bouncing):
    listener = Listener()
    with listener:
        server, bounce = bouncing(listener.url, delivery_connections="1")
        bounce()
        listener.next()
        wait_for(lambda: server.app.delivery.transport.sessions.kept == 1)
    with Listener(port=listener.port) as again:
        message_id = bounce()
        again.next()
        assert server.bounce(message_id).attempts == 1


def test_a_bounce_expires(bouncing, clock):
    server, bounce = bouncing(f"smtp://127.0.0.1:{free_port()}", give_up_after="1m")
    message_id = bounce()
    assert server.bounce(message_id).attempts == 1
    clock.advance(timedelta(seconds=90))
    wait_for(lambda: server.bounce(message_id).state == "expired")


def _tls(tmp_path):
    from sendback.smtp.tls import server_context

    return server_context(None, None, tmp_path, "mx.sender.example")


def test_starttls_is_used_when_it_is_offered(bouncing, tmp_path):
    with Listener(tls_context=_tls(tmp_path)) as listener:
        server, bounce = bouncing(listener.url)
        message_id = bounce()
        listener.next()
        wait_for(lambda: server.bounce(message_id).state == "delivered")
    assert server.attempts(message_id)[0].tls == "TLSv1.3"


# aiosmtpd leaves its side of the failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_relay_whose_certificate_must_be_valid_and_is_not_gets_nothing(bouncing, tmp_path):
    with Listener(tls_context=_tls(tmp_path)) as listener:
        server, bounce = bouncing(listener.url, relay_tls="verify")
        waiting = server.bounce(bounce())
        assert waiting.state == "queued"
        assert "ertificate" in waiting.last_reply
        assert listener.messages.empty()


def test_a_relay_that_must_offer_tls_and_does_not_gets_nothing(bouncing):
    with Listener() as listener:
        server, bounce = bouncing(listener.url, relay_tls="verify")
        assert "STARTTLS" in server.bounce(bounce()).last_reply
        assert listener.messages.empty()


@pytest.mark.parametrize(("password", "state"), [("s3cret", "delivered"), ("wrong", "queued")])
def test_auth_when_the_url_has_credentials(bouncing, password, state):
    def check(server, session, envelope, mechanism, data):
        good = (data.login, data.password) == (b"relay@user", b"s3cret")
        return AuthResult(success=good, handled=good)

    options = {"authenticator": check, "auth_required": True, "auth_require_tls": False}
    with Listener(**options) as listener:
        server, bounce = bouncing(f"smtp://relay%40user:{password}@127.0.0.1:{listener.port}")
        message_id = bounce()
        wait_for(lambda: server.bounce(message_id).attempts == 1)
        assert server.bounce(message_id).state == state


def test_a_non_ascii_reverse_path_needs_smtputf8_at_the_peer(bouncing):
    mail = EmailMessage()
    mail["Subject"] = "x"
    for offered, state in ((True, "delivered"), (False, "failed")):
        with Listener(enable_SMTPUTF8=offered, decode_data=False) as listener:
            server, bounce = bouncing(listener.url)
            with smtplib.SMTP("127.0.0.1", server.smtp_port) as smtp:
                smtp.ehlo()
                smtp.command_encoding = "utf-8"
                smtp.mail("änn@sender.example", ("SMTPUTF8",))
                smtp.rcpt("bob@example.com")
                message = smtp.data(b"\r\nhi\r\n")[1].decode().split()[1]
            answer = server.ses.send_bounce(
                OriginalMessageId=message,
                BounceSender="a@example.com",
                BouncedRecipientInfoList=[
                    {"Recipient": "bob@example.com", "BounceType": "Undefined"}
                ],
            )
            found = server.bounce(answer["MessageId"])
            assert found.state == state, found
            if offered:
                assert listener.next().recipients == ["änn@sender.example"]
            else:
                assert "SMTPUTF8" in found.last_reply


def test_the_generated_certificate_is_private_and_loads(tmp_path):
    assert isinstance(_tls(tmp_path), ssl.SSLContext)
    assert (tmp_path / "tls.pem").stat().st_mode & 0o77 == 0
