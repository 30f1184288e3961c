"""Mail handed over by SMTP: to servers that behave, and to some that do not."""

import asyncio
import time

import pytest

from sendback.actions.mailboxes import MailboxServers
from sendback.service.rules.content import CHUNK_OCTETS, Content, ContentGoneError
from sendback.service.rules.ports import ActionFailedError, UnknownTargetError
from tests.partners.authority import Authority
from tests.partners.awkward import Awkward, endless_reply, flood
from tests.partners.contents import in_file

HEADER = b"Subject: x\r\n"
BODY = b"\r\n.\r\n..\r\nhello\r\n"


def content_of(body=BODY, header=HEADER):
    return Content(header, body, len(body))


def deliver(
    peer, content=None, *, sender="ann@sender.example", recipients=("bob@example.com",), seconds=5.0
):
    servers = MailboxServers("mx.example.com", seconds=seconds)
    target = peer if isinstance(peer, str) else peer.url
    return asyncio.run(servers.deliver(target, sender, recipients, content or content_of()))


def failure(*arguments, **options):
    with pytest.raises(ActionFailedError) as raised:
        deliver(*arguments, **options)
    return raised.value


def test_the_content_arrives_as_it_is():
    with Awkward() as peer:
        text = deliver(peer, recipients=("bob@example.com", "eve@example.com"))
        assert peer.contents == [HEADER + BODY]
        assert peer.commands == [
            "EHLO mx.example.com",
            "MAIL FROM:<ann@sender.example>",
            "RCPT TO:<bob@example.com>",
            "RCPT TO:<eve@example.com>",
            "DATA",
            "QUIT",
        ]
        assert text == f"{peer.url} answered 2.0.0 Ok"


def test_a_null_reverse_path():
    with Awkward() as peer:
        deliver(peer, sender="")
        assert "MAIL FROM:<>" in peer.commands


@pytest.mark.parametrize("end", [b"", b".", b"\r\n.", b"\r\n.\r\n", b"\r", b"x\r\n"])
def test_dots_where_chunks_are_cut(tmp_path, end):
    body = b"\r\n" + b"x" * (CHUNK_OCTETS - len(HEADER) - 4)
    for cut in (b"\r\n.a", b"a\r\n.b", b"ab\r\n.", b"abc\r\n."):
        whole = body + cut + b"y" * 1000 + end
        (tmp_path / "body").write_bytes(whole)
        with Awkward() as peer:
            deliver(peer, in_file(HEADER, tmp_path / "body", len(whole)))
            # What has no line end at its end gets one.
            ended = whole if whole.endswith(b"\r\n") else whole + b"\r\n"
            assert peer.contents == [HEADER + ended]


def test_parameters_that_the_server_knows(tmp_path):
    with Awkward(extensions=("SIZE 1000000", "8BITMIME", "SMTPUTF8")) as peer:
        deliver(peer)
        deliver(peer, content_of(b"\r\n\xe4\r\n"), recipients=("böb@example.com",))
    assert peer.commands[1] == "MAIL FROM:<ann@sender.example> SIZE=28"
    second = peer.commands[peer.commands.index("QUIT") + 2 :]
    assert second[0] == "MAIL FROM:<ann@sender.example> SIZE=17 BODY=8BITMIME SMTPUTF8"
    assert second[1] == "RCPT TO:<böb@example.com>"


def test_a_server_that_does_not_know_them():
    with Awkward(extensions=()) as peer:
        deliver(peer, content_of(b"\r\n\xe4\r\n"))
        assert peer.commands[1] == "MAIL FROM:<ann@sender.example>"
        error = failure(peer, recipients=("böb@example.com",))
    assert error.final
    assert "does not support SMTPUTF8" in str(error)


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "content"])
@pytest.mark.parametrize(
    ("reply", "final"), [(b"451 4.3.0 later\r\n", False), (b"550 5.7.1 \x1b[31mno\r\n", True)]
)
def test_refusals(stage, reply, final):
    with Awkward(stage, lambda _: reply) as peer:
        error = failure(peer)
    assert error.final is final
    assert reply[4:9].decode() in str(error)
    assert "\x1b" not in str(error)


def test_one_recipient_is_refused_and_the_other_is_not():
    replies = [b"550 5.1.1 who?\r\n", b"250 2.1.5 Ok\r\n"]
    with Awkward("RCPT", lambda _: replies.pop(0)) as peer:
        text = deliver(peer, recipients=("bob@example.com", "eve@example.com"))
    assert text.endswith("answered 2.0.0 Ok; refused: bob@example.com: 550 5.1.1 who?")


@pytest.mark.parametrize("stage", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "content"])
@pytest.mark.parametrize(
    "misdeed",
    [Awkward.stall, lambda _: None, flood, endless_reply, lambda _: b"\xff\0nonsense\r\n"],
)
def test_servers_that_misbehave(stage, misdeed):
    with Awkward(stage, misdeed) as peer:
        assert not failure(peer, seconds=0.5).final


def test_a_server_that_does_not_read_the_content(tmp_path):
    """The connection is cut: what was sent must not become a mail."""
    body = b"\r\n" + b"x\r\n" * 10_000_000
    (tmp_path / "body").write_bytes(body)
    content = in_file(HEADER, tmp_path / "body", len(body))

    def reads_nothing(connection):
        connection.sendall(b"354 go on\r\n")
        time.sleep(3)

    with Awkward("DATA", reads_nothing) as peer:
        assert "does not take the content" in str(failure(peer, content, seconds=0.5))
        assert peer.contents == []


def test_content_that_is_gone(tmp_path):
    with Awkward() as peer:
        with pytest.raises(ContentGoneError):
            deliver(peer, in_file(HEADER, tmp_path / "body", 10))
        assert peer.contents == []


def test_content_that_breaks_in_the_middle():
    """A mail that is sent in part is not ended as if it were whole."""

    class Broken(Content):
        reads = 0

        async def stream(self):
            type(self).reads += 1
            yield HEADER
            yield b"\r\nhalf a mail\r\n"
            if type(self).reads > 1:  # the first looks for octets that are not ASCII
                raise OSError("the disk broke")

    with Awkward() as peer:
        error = failure(peer, Broken(HEADER, b"", 0))
    assert "the disk broke" in str(error)
    assert not error.final
    assert peer.commands[-1] == "DATA"
    assert peer.contents[0].endswith(b"half a mail\r\n")  # and no command behind it


def test_nobody_is_there():
    assert not failure("smtp://127.0.0.1:1").final


@pytest.mark.parametrize("target", ["mail.example.com", "http://x", "smtp://"])
def test_what_is_no_server(target):
    with pytest.raises(UnknownTargetError, match="is no SMTP server"):
        deliver(target)


def test_starttls_is_used_where_it_is_offered(tmp_path, monkeypatch):
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with Awkward(tls=authority.issue("localhost").context()) as peer:
        deliver(f"smtp://localhost:{peer.port}")
        assert peer.commands[:3] == ["EHLO mx.example.com", "STARTTLS", "EHLO mx.example.com"]
        assert peer.contents == [HEADER + BODY]


def test_a_certificate_that_is_not_trusted(tmp_path):
    with Awkward(tls=Authority(tmp_path).issue("localhost").context()) as peer:
        error = failure(f"smtp://localhost:{peer.port}")
        assert "the certificate is not valid" in str(error)
        assert not error.final
        assert peer.contents == []


def test_content_in_tls_is_sent_in_pieces(tmp_path, monkeypatch):
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    body = b"\r\n" + b".xyz\r\n" * 500_000
    (tmp_path / "body").write_bytes(body)
    with Awkward(tls=authority.issue("localhost").context()) as peer:
        deliver(f"smtp://localhost:{peer.port}", in_file(HEADER, tmp_path / "body", len(body)))
        assert peer.contents == [HEADER + body]


def test_cancelling_closes_the_connection_without_a_mail():
    async def cancelled(peer):
        servers = MailboxServers("mx.example.com")
        task = asyncio.create_task(servers.deliver(peer.url, "", ["bob@example.com"], content_of()))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Awkward("DATA", Awkward.stall) as peer:
        asyncio.run(cancelled(peer))
        assert peer.commands[-1] == "DATA"
        assert peer.contents == []
