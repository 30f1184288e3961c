"""Open-relay tricks: forty ways to write a recipient that a careless server passes on."""

import pytest

from tests.smtp.sessions import Session

US, THEM = "example.com", "victim.example"
TRICKS = [
    f"<u@{THEM}>",
    f"<u%{THEM}@{US}>",
    f"<u%{THEM}>",
    f"<u%{THEM}@localhost>",
    f"<u%{THEM}@[127.0.0.1]>",
    f"<u%{THEM}@mx.{US}>",
    f"<u@{THEM}@{US}>",
    f"<u@{THEM}%{US}>",
    f'<"u@{THEM}"@{US}>',
    f'<"u@{THEM}">',
    f'<"u%{THEM}"@{US}>',
    f'<"u%{THEM}">',
    f"<{THEM}!u@{US}>",
    f"<{THEM}!u>",
    f'<"{THEM}!u"@{US}>',
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
    f"<u=40{THEM}%{THEM}@{US}>",
    f"<'u@{THEM}'@{US}>",
    f"<u(x)@{THEM}>",
]


def test_there_are_forty_of_them():
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


def test_our_own_recipient_is():
    session = Session().hello()
    session.send(b"MAIL FROM:<ann@sender.example>\r\n")
    assert session.codes(f"RCPT TO:<bob@{US}>\r\n".encode()) == ["250"]
