"""RET, languages, and peers that cannot take 8-bit content: the whole way."""

import pytest
from aiosmtpd.smtp import SMTP
from botocore.exceptions import ClientError

from sendback.config.settings import SettingError
from sendback.dsn import parse
from tests.partners.clients import MAIL
from tests.partners.listener import Listener

GERMAN = "From: a\r\nAccept-Language: de-AT, en\r\nSubject: x\r\n\r\nGrüße\r\n".encode()


def bounced(server, **mail):
    answer = server.ses.send_bounce(
        OriginalMessageId=server.send_mail(**mail),
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}],
    )
    return server.bounce(answer["MessageId"])


@pytest.fixture
def started(running):
    def start(**flags):
        server = running(send_bounce_rate="0", **flags)
        server.ses.verify_domain_identity(Domain="example.com")
        return server

    return start


def test_headers_only_unless_the_sender_asks(server):
    assert parse(bounced(server).content).returned_type == "text/rfc822-headers"
    hdrs = bounced(server, mail_options=("RET=HDRS",))
    assert parse(hdrs.content).returned_type == "text/rfc822-headers"


def test_the_whole_mail_when_the_sender_asks(server):
    dsn = parse(bounced(server, mail_options=("RET=FULL",)).content)
    assert dsn.returned_type == "message/rfc822"
    assert dsn.returned.endswith(MAIL.rstrip(b"\r\n") + b"\r\n")


@pytest.mark.parametrize(
    "content",
    [
        MAIL + (b"x" * 98 + b"\r\n") * 700,  # over 64 KiB
        MAIL + b"x" * 999 + b"\r\n",  # a line that mail does not carry
        MAIL + b"a\x00b\r\n",
    ],
)
def test_headers_when_the_whole_mail_cannot_go_back(server, content):
    dsn = parse(bounced(server, content=content, mail_options=("RET=FULL",)).content)
    assert dsn.returned_type == "text/rfc822-headers"


def test_a_setting_returns_small_mails_whole(started):
    server = started(return_content="full")
    assert parse(bounced(server).content).returned_type == "message/rfc822"
    hdrs = bounced(server, mail_options=("RET=HDRS",))
    assert parse(hdrs.content).returned_type == "text/rfc822-headers"


class _Plain(SMTP):
    """A peer of long ago: no 8BITMIME."""

    async def smtp_EHLO(self, hostname):
        self._set_rset_state()
        self.session.extended_smtp = True
        self.session.host_name = hostname
        await self.push("250 HELP")


def test_a_peer_without_8bitmime_gets_the_headers(started):
    with Listener() as modern:
        server = started(outbound=modern.url)
        bounced(server, content=GERMAN, mail_options=("RET=FULL", "BODY=8BITMIME"))
        assert "Grüße".encode() in modern.next().content
    with Listener() as old:
        old.controller.factory = lambda: _Plain(old, hostname="old.sender.example")
        server = started(outbound=old.url)
        bounced(server, content=GERMAN, mail_options=("RET=FULL", "BODY=8BITMIME"))
        arrived = old.next().content
    assert arrived.isascii()
    assert parse(arrived).returned_type == "text/rfc822-headers"


def test_the_language_is_the_originals(server):
    text = parse(bounced(server, content=GERMAN).content).explanation
    assert text.startswith("Diese Nachricht konnte nicht zugestellt werden.")
    text = parse(bounced(server, content=GERMAN.replace(b"Accept", b"Content")).content).explanation
    assert text.startswith("Diese Nachricht")
    assert parse(bounced(server).content).explanation.startswith("This message")


def test_the_language_may_be_set(started):
    server = started(bounce_language="fr")
    assert parse(bounced(server, content=GERMAN).content).explanation.startswith("Ce message")


def test_texts_of_ones_own(started, tmp_path):
    from tests.dsn.test_texts import EVERYTHING

    (tmp_path / "en.toml").write_text(EVERYTHING)
    server = started(bounce_texts=str(tmp_path))
    assert parse(bounced(server).content).explanation.startswith("F mx.example.com")


def test_texts_that_cannot_be_used_stop_the_start(running, tmp_path):
    (tmp_path / "en.toml").write_text("first_line = 3")
    with pytest.raises(SettingError, match="happened"):
        running(bounce_texts=str(tmp_path))
    with pytest.raises(SettingError, match="bounce_language"):
        running(bounce_language="tlh")


def test_notify_never_is_honoured_by_a_setting(started):
    """Without it, SendBounce was asked for by hand, and is done."""
    never = {"rcpt_options": ("NOTIFY=NEVER",)}
    assert bounced(started(), **never).state == "captured"
    server = started(honour_notify_never="true")
    with pytest.raises(ClientError, match="NOTIFY=NEVER"):
        bounced(server, **never)
    assert bounced(server, rcpt_options=("NOTIFY=FAILURE",)).state == "captured"
