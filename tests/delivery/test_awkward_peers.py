"""Every misdeed at every stage: the message ends in the right state, the connection is freed."""

import re

import pytest

from tests.partners.awkward import Awkward, drip, endless_reply, flood
from tests.partners.waiting import wait_for

STAGES = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "content"]
PIPELINED = ("PIPELINING", "8BITMIME")
ALONE = ("8BITMIME",)
CHUNKED = ("PIPELINING", "CHUNKING", "8BITMIME")

MISDEEDS = {
    "garbage": lambda _: b"\xff\xfe\x00 this is not SMTP\r\n",
    "wrong code": lambda _: b"999 9.9.9 never\r\n",
    "two codes": lambda _: b"250-one\r\n251 two\r\n",
    "flood": flood,
    "endless": endless_reply,
    "closes": lambda _: None,
    "half a line": drip(1.5),
    "4xx": lambda _: b"451 4.3.0 not now\r\n",
    "421": lambda _: b"421 4.3.2 closing\r\n",
    "5xx": lambda _: b"550 5.7.1 never\r\n",
}


@pytest.fixture
def bouncing(running):
    def start(peer, **flags):
        server = running(send_bounce_rate="0", outbound=peer.url, delivery_timeout="1s", **flags)
        server.ses.verify_domain_identity(Domain="example.com")
        return server, server.bounce(server.send_bounce())

    return start


def check_freed(server, peer):
    """No place is taken, and no connection is open but a kept one."""
    transport = server.app.delivery.transport
    wait_for(lambda: not transport.sessions.in_use)
    kept = transport.sessions.kept
    wait_for(lambda: peer.open <= kept)


@pytest.mark.parametrize(
    "extensions", [PIPELINED, ALONE, CHUNKED], ids=["pipelined", "alone", "chunked"]
)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_misdeeds(bouncing, misdeed, stage, extensions):
    if extensions is CHUNKED and stage == "DATA":
        return  # with CHUNKING there is no DATA
    with Awkward(stage, MISDEEDS[misdeed], extensions=extensions) as peer:
        server, found = bouncing(peer)
        of_message = stage in {"MAIL", "RCPT", "DATA", "content"}
        expected = "failed" if misdeed == "5xx" and of_message else "queued"
        if misdeed == "5xx" and stage == "EHLO":
            expected = "delivered"  # by HELO
        assert (found.state, found.attempts) == (expected, 1), found.last_reply
        check_freed(server, peer)
        if misdeed in {"4xx", "5xx"} and stage != "EHLO":
            assert re.match("451 4.3.0 not now|550 5.7.1 never", found.last_reply)
        if stage != "content" and extensions is not CHUNKED and expected != "delivered":
            assert all(not content for content in peer.contents)
    (attempt,) = server.attempts(found.message_id)
    assert attempt.peer == f"127.0.0.1:{peer.port}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stall_at_each_stage(bouncing, stage):
    with Awkward(stage, Awkward.stall) as peer:
        server, found = bouncing(peer)
        assert found.state == "queued"
        assert "no reply within 1 s" in found.last_reply
        check_freed(server, peer)


@pytest.mark.parametrize(
    "misdeed",
    [
        lambda _: b"454 4.7.0 TLS not available\r\n",
        lambda _: b"220 2.0.0 go on\r\n",  # and then speaks no TLS
        lambda _: b"220 2.0.0 go on\r\n250 2.0.0 injected\r\n",
        lambda _: None,
    ],
    ids=["refused", "no TLS", "injected", "closes"],
)
def test_starttls_that_fails(bouncing, misdeed):
    """Opportunistic TLS that fails is none: in clear, over a connection of its own."""
    with Awkward("STARTTLS", misdeed, extensions=("STARTTLS", *PIPELINED)) as peer:
        server, found = bouncing(peer)
        assert (found.state, found.last_reply) == ("delivered", "250 2.0.0 Ok")
        assert peer.sessions == 2
        check_freed(server, peer)


def test_starttls_that_fails_where_it_is_required(bouncing):
    with Awkward(
        "STARTTLS", lambda _: b"454 4.7.0 no\r\n", extensions=("STARTTLS", *PIPELINED)
    ) as peer:
        server, found = bouncing(peer, relay_tls="verify")
        assert (found.state, found.last_reply) == ("queued", "STARTTLS: 454 4.7.0 no")
        assert peer.contents == []
        check_freed(server, peer)


def test_a_server_that_is_gone_between_two_messages(bouncing):
    """A kept session that was closed meanwhile costs no attempt."""
    with Awkward() as peer:
        server, first = bouncing(peer)
        assert first.state == "delivered"
        message = server.ses.send_bounce(
            OriginalMessageId=first.original_message_id,
            BounceSender="mailer-daemon@example.com",
            BouncedRecipientInfoList=[
                {"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}
            ],
        )
        found = server.bounce(message["MessageId"])
        assert (found.state, found.attempts) == ("delivered", 1)
        assert peer.sessions == 1


@pytest.mark.parametrize(
    "extensions", [PIPELINED, ALONE, CHUNKED], ids=["pipelined", "alone", "chunked"]
)
def test_what_arrives_is_what_was_sent(bouncing, extensions):
    with Awkward(extensions=extensions) as peer:
        _, found = bouncing(peer)
        assert found.state == "delivered"
        assert peer.contents == [found.content]
        assert peer.commands[1].startswith("MAIL FROM:<>")


def test_several_smarthosts_in_order(bouncing, running):
    with (
        Awkward("greeting", lambda _: b"421 4.3.2 busy\r\n") as first,
        Awkward("content", lambda _: None) as lossy,
        Awkward() as last,
    ):

        class Both:
            url = f"smtp://127.0.0.1:1,{first.url},{last.url},{lossy.url}"

        _, found = bouncing(Both)
        assert found.state == "delivered"
        assert (first.sessions, last.sessions, lossy.sessions) == (1, 1, 0)


def test_content_that_may_have_been_taken_is_not_sent_to_the_next_host(bouncing):
    """RFC 5321 §4.5.3.2.6: it might be taken twice; the next attempt comes later."""
    with Awkward("content", lambda _: None) as lossy, Awkward() as other:

        class Both:
            url = f"{lossy.url},{other.url}"

        _, found = bouncing(Both)
        assert found.state == "queued"
        assert other.sessions == 0
