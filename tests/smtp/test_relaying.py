"""Open-relay tricks: ways to write a recipient that a careless server passes on."""

import pytest

from tests.smtp.sessions import Session

US, THEM = "example.com", "victim.example"
TRICKS = [
    f"<u@{THEM}>",
    f"<u%{THEM}>",
    f"<u%{THEM}@localhost>",
    f"<u%{THEM}@[127.0.0.1]>",
    f"<u%{THEM}@mx.{US}>",
    f"<u@{THEM}@{US}>",
    f"<u@{THEM}%{US}>",
    f'<"u@{THEM}">',
    f'<"u%{THEM}">',
    f"<{THEM}!u>",
    f"<{US}!{THEM}!u>",
    f"<{US}!u@{THEM}>",
    f"<@{US}:u@{THEM}>",
    f"<@{US},@{THEM}:u@{THEM}>",
    f"<@[127.0.0.1]:u@{THEM}>",
    f"<@localhost:u@{THEM}>",
    f"<@{US}:u%{THEM}@{US}>",
    f"<u@{THEM}.>",
    f"<u@{THEM}:{US}>",
    "<u@[127.0.0.1]>",
    "<u@[IPv6:::1]>",
    "<u@localhost>",
    "<u>",
    "<>",
    f"<u@{US}.{THEM}>",
    f"<u@not-{US}>",
    f"<u@{THEM}#{US}>",
    f"<u@{THEM}\x00@{US}>",
    f"<u@{THEM} @{US}>",
    f"<u@{THEM}>,<u@{US}>",
    f"<u@{THEM}> <u@{US}>",
    f"u@{THEM}",
    f"<<u@{THEM}>@{US}>",
    f"<u@{THEM}\r@{US}>",
    f"<'u@{THEM}'@{US}>",
    f"<u(x)@{THEM}>",
    f"<u@{THEM},u@{US}>",
    f"<u@{THEM};u@{US}>",
    f"<u@{THEM}|u@{US}>",
    f"<u@{THEM}?@{US}>",
    f'<"u"@{THEM}@{US}>',
    f'<u@"{THEM}"@{US}>',
]
# This is the final host: here these are the names of mailboxes, and nothing is passed on for them.
LOCAL_PARTS = [
    f"<u%{THEM}@{US}>",
    f'<"u@{THEM}"@{US}>',
    f'<"u%{THEM}"@{US}>',
    f"<{THEM}!u@{US}>",
    f'<"{THEM}!u"@{US}>',
    f"<u=40{THEM}%{THEM}@{US}>",
    f"<wow!@{US}>",
]


def test_there_are_at_least_forty_tricks():
    assert len(set(TRICKS)) >= 40


@pytest.mark.parametrize(
    "sender", ["<ann@sender.example>", f"<bob@{US}>", "<>", "<root@localhost>"]
)
@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_is_accepted(trick, sender):
    session = Session().hello()
    assert session.codes(f"MAIL FROM:{sender}\r\n".encode()) == ["250"]
    codes = session.codes(f"RCPT TO:{trick}\r\n".encode())
    assert codes
    assert all(code.startswith("5") for code in codes)
    assert "354" not in session.codes(b"DATA\r\n")


def test_a_local_recipient_is_accepted():
    session = Session().hello()
    session.send(b"MAIL FROM:<ann@sender.example>\r\n")
    assert session.codes(f"RCPT TO:<bob@{US}>\r\n".encode()) == ["250"]


@pytest.mark.parametrize("path", LOCAL_PARTS)
def test_a_local_part_that_looks_like_a_route_is_a_mailbox_here(path):
    session = Session().hello()
    session.send(b"MAIL FROM:<ann@sender.example>\r\n")
    assert session.codes(f"RCPT TO:{path}\r\n".encode()) == ["250"]
    session.send(b"DATA\r\n", b"hi\r\n.\r\n")
    (recipient,) = session.messages[0][0].recipients
    assert (f"<{recipient.address}>", recipient.address.ascii_domain) == (path, US)


@pytest.mark.parametrize(
    "sender", ["taro..yamada", ".taro", "taro.", "taro.-.yamada..", '"taro..yamada"']
)
def test_senders_with_dots_that_no_standard_allows_are_real(sender):
    session = Session().hello()
    assert session.codes(f"MAIL FROM:<{sender}@sender.example>\r\n".encode()) == ["250"]


@pytest.mark.parametrize(
    "name", [b"PhpStorm 9.0.3", "büro-pc".encode(), b"b\xfcro-pc", b"a_b", b"[127.0.0.1]"]
)
def test_no_client_is_refused_for_its_name(name):
    session = Session()
    assert session.codes(b"EHLO " + name + b"\r\n") == ["250"]
    assert session.codes(b"MAIL FROM:<ann@sender.example>\r\n") == ["250"]
