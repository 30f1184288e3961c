import pytest

from sendback.mail.address import Address
from sendback.mail.envelope import Client, Notify, OriginalRecipient, Ret
from sendback.smtp.events import NoEvent
from sendback.smtp.replies import SHUTTING_DOWN
from sendback.smtp.session import SessionLimits
from tests.smtp.sessions import Session


def test_a_message_is_received():
    session = Session()
    assert session.banner == b"220 mx.example.com ESMTP Sendback\r\n"
    assert session.send(b"EHLO mx.sender.example\r\n").decode().splitlines() == [
        "250-mx.example.com greets you",
        "250-SIZE 41943040",
        "250-8BITMIME",
        "250-PIPELINING",
        "250-SMTPUTF8",
        "250-ENHANCEDSTATUSCODES",
        "250-DSN",
        "250-HELP",
        "250 STARTTLS",
    ]
    assert session.send(b"MAIL FROM:<ann@sender.example>\r\n") == b"250 2.1.0 Sender ok\r\n"
    assert session.send(b"RCPT TO:<bob@example.com>\r\n") == b"250 2.1.5 Recipient ok\r\n"
    assert session.send(b"DATA\r\n").startswith(b"354 ")
    assert session.send(b"A: 1\r\n\r\nhi\r\n.\r\n") == b"250 2.6.0 id1 Message accepted\r\n"
    assert session.send(b"QUIT\r\n") == b"221 2.0.0 Bye\r\n"
    assert session.ended
    envelope, content = session.messages[0]
    assert content == b"A: 1\r\n\r\nhi\r\n"
    assert envelope.client == Client("192.0.2.1", "mx.sender.example", None)
    assert str(envelope.reverse_path) == "ann@sender.example"
    assert [str(entry.address) for entry in envelope.recipients] == ["bob@example.com"]


def test_dsn_parameters_keep_their_case():
    session = Session().hello()
    assert session.codes(
        b"mail from:<ann@sender.example> ret=full ENVID=QQ+2BCase+3D1 SIZE=100 BODY=8BITMIME\r\n"
        b"rcpt to:<bob@example.com> NOTIFY=failure,DELAY ORCPT=rfc822;Bob+2Btag@Example.com\r\n"
        b"RCPT TO:<eve@example.com> NOTIFY=NEVER\r\n"
        b"DATA\r\n",
        b".\r\n",
    ) == ["250", "250", "250", "354", "250"]
    envelope, content = session.messages[0]
    assert content == b""
    assert (envelope.ret, envelope.envelope_id, envelope.body_8bit) == (Ret.FULL, "QQ+Case=1", True)
    bob, eve = envelope.recipients
    assert bob.notify == {Notify.FAILURE, Notify.DELAY}
    assert bob.original == OriginalRecipient("rfc822", "Bob+tag@Example.com")
    assert eve.notify == {Notify.NEVER}
    assert eve.original is None


def test_the_null_reverse_path_has_one_form():
    session = Session().hello()
    session.send(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n.\r\n")
    assert session.messages[0][0].reverse_path.address is None


def test_internationalized_addresses_need_smtputf8():
    session = Session().hello()
    assert session.codes("MAIL FROM:<änn@sender.example>\r\n".encode()) == ["553"]
    assert session.codes("MAIL FROM:<änn@sender.example> SMTPUTF8\r\n".encode()) == ["250"]
    assert session.codes("RCPT TO:<büb@example.com>\r\n".encode()) == ["250"]
    session.send(b"RSET\r\nMAIL FROM:<ann@sender.example>\r\n")
    assert session.codes("RCPT TO:<büb@example.com>\r\n".encode()) == ["553"]


def test_an_orcpt_of_type_utf_8_is_decoded():
    session = Session().hello()
    session.send(b"MAIL FROM:<> SMTPUTF8\r\n")
    session.send(b"RCPT TO:<bob@example.com> ORCPT=utf-8;b\\x{FC}b@example.com\r\nDATA\r\n.\r\n")
    recipient = session.messages[0][0].recipients[0]
    assert recipient.original == OriginalRecipient("utf-8", "büb@example.com")


def test_postmaster_without_a_domain_is_at_this_host():
    session = Session().hello()
    session.send(b"MAIL FROM:<>\r\n")
    assert session.send(b"RCPT TO:<Postmaster>\r\n").startswith(b"550 5.1.1")


def test_a_recipient_given_twice_is_one():
    session = Session().hello()
    session.send(b"MAIL FROM:<>\r\n")
    assert (
        session.codes(b"RCPT TO:<bob@example.com>\r\nRCPT TO:<bob@EXAMPLE.com>\r\n") == ["250"] * 2
    )
    session.send(b"DATA\r\n.\r\n")
    assert session.messages[0][0].recipients[0].address == Address("bob", "example.com")
    assert len(session.messages[0][0].recipients) == 1


@pytest.mark.parametrize(
    ("commands", "code"),
    [
        (b"MAIL FROM:<a@b.example>\r\n", "503"),
        (b"EHLO\r\n", "501"),
        (b"EHLO \r\n", "501"),
        (b"EHLO " + b"a" * 256 + b"\r\n", "501"),
        (b"EHLO a\x00b\r\n", "500"),
        (b"EHLO x\r\nRCPT TO:<bob@example.com>\r\n", "503"),
        (b"EHLO x\r\nDATA\r\n", "503"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nDATA\r\n", "554"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\n", "503"),
        (b"EHLO x\r\nMAIL FROM:a@b.example\r\n", "501"),
        (b"EHLO x\r\nMAIL TO:<a@b.example>\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<a@b@c.example>\r\n", "553"),
        (b"EHLO x\r\nMAIL FROM:<> SIZE=x\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<> SIZE=99999999999\r\n", "552"),
        (b"EHLO x\r\nMAIL FROM:<> BODY=BINARYMIME\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<> SMTPUTF8=1\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<> RET=ALL\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<> RET=HDRS RET=HDRS\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<> ENVID=\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<> ENVID=a+0D+0AX-Forged:+20y\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<> ENVID=a=b\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<> ENVID=" + b"a" * 101 + b"\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<> FROBNICATE=1\r\n", "555"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com> NOTIFY=NEVER,DELAY\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com> NOTIFY=\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com> ORCPT=rfc822\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com> ORCPT=rfc822;a+0Ab\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com> ORCPT=utf-8;\\x{0A}\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com> ORCPT=utf-8;\\x{FFFFFF}\r\n", "501"),
        (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<>\r\n", "553"),
        (b"EHLO x\r\nAUTH PLAIN AGEAYg==\r\n", "502"),
        (b"EHLO x\r\nEXPN list\r\n", "502"),
        (b"EHLO x\r\nBDAT 5 LAST\r\n", "502"),
        (b"EHLO x\r\nDATA now\r\n", "501"),
        (b"EHLO x\r\nSTARTTLS now\r\n", "501"),
        (b"GET / HTTP/1.1\r\n", "500"),
        (b"\r\n", "500"),
        (b"NOOP\n", "500"),
        (b"NO\rOP\r\n", "500"),
        (b"NOOP \x00\r\n", "500"),
        (b"NOOP \xff\r\n", "500"),
        (b"NOOP " + b"x" * 600 + b"\r\n", "500"),
        (b"VRFY\r\n", "501"),
    ],
)
def test_protocol_errors_are_refused_with_their_code(commands, code):
    session = Session()
    codes = session.codes(commands)
    assert codes[-1] == code
    assert not session.messages
    assert session.codes(b"NOOP\r\n") == ["250"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"HELO x", "250"),
        (b"NOOP", "250"),
        (b"RSET", "250"),
        (b"VRFY bob", "252"),
        (b"HELP", "214"),
    ],
)
def test_the_other_commands(command, code):
    assert Session().codes(command + b"\r\n") == [code]


def test_the_longest_lines_that_extensions_allow_pass_and_longer_ones_do_not():
    session = Session().hello()
    parameters = b" SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=" + b"e" * 100
    local = b"a" * 250
    assert session.codes(b"MAIL FROM:<" + local + b"@sender.example>" + parameters + b"\r\n") == [
        "250"
    ]
    orcpt = b" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;" + b"o" * 480
    assert session.codes(b"RCPT TO:<bob@example.com>" + orcpt + b"\r\n") == ["250"]
    assert session.codes(b"RCPT TO:<bob@example.com> ORCPT=rfc822;" + b"o" * 2000 + b"\r\n") == [
        "500"
    ]


def test_a_line_without_end_is_dropped_as_it_comes():
    session = Session()
    for _ in range(1000):
        assert session.send(b"x" * 1000) == b""
    assert session.machine.buffered < 2000
    assert session.codes(b"\r\nNOOP\r\n") == ["500", "250"]


def test_too_many_errors_end_the_session():
    session = Session(limits=SessionLimits(errors=3))
    assert session.codes(b"X\r\n" * 10) == ["500", "500", "500", "421"]
    assert session.ended
    assert session.send(b"NOOP\r\n") == b""


def test_recipients_over_the_limit_get_452():
    session = Session(limits=SessionLimits(recipients=2)).hello()
    session.send(b"MAIL FROM:<>\r\n")
    commands = b"".join(b"RCPT TO:<u%d@example.com>\r\n" % number for number in range(3))
    assert session.codes(commands) == ["250", "250", "452"]


def test_a_message_over_the_limit_is_refused_at_its_end_and_the_session_goes_on():
    session = Session(limits=SessionLimits(content=2000)).transaction()
    assert session.codes(*([b"x" * 998 + b"\r\n"] * 5)) == []
    assert session.codes(b".\r\n") == ["552"]
    assert not session.messages
    session.send(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n.\r\n")
    assert len(session.messages) == 1


def test_dots_are_unstuffed_wherever_the_octets_are_cut():
    wire = b"..a\r\n.b\r\n...\r\nc..\r\n..\r\n.\r\n"
    for cut in range(len(wire) + 1):
        session = Session().transaction()
        assert session.codes(wire[:cut], wire[cut:]) == ["250"]
        assert session.messages[0][1] == b".a\r\nb\r\n..\r\nc..\r\n.\r\n"


def test_replies_keep_the_order_of_pipelined_commands():
    session = Session()
    codes = session.codes(
        b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@other.example>\r\n"
        b"RCPT TO:<bob@example.com>\r\nDATA\r\n",
        b"hi\r\n.\r\nMAIL FROM:<>\r\nQUIT\r\n",
    )
    assert codes == ["250", "250", "550", "250", "354", "250", "250", "221"]
    assert len(session.messages[0][0].recipients) == 1


def test_output_that_is_not_taken_stops_the_machine():
    machine = Session(limits=SessionLimits(overhead_commands=1_000_000)).machine
    machine.receive(b"EHLO x\r\n" * 100_000)
    most = taken = 0
    while machine.buffered:
        while not isinstance(machine.next_event(), NoEvent):
            pass
        output = machine.take_output()
        most, taken = max(most, len(output)), taken + len(output)
    assert most < 17_000
    assert taken > 10_000_000


def test_rset_and_ehlo_forget_the_transaction():
    for command in (b"RSET\r\n", b"EHLO x\r\n"):
        session = Session().hello()
        session.send(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\n")
        assert session.codes(command + b"DATA\r\n") == ["250", "503"]


def test_after_starttls_the_session_starts_anew():
    session = Session().hello()
    assert session.send(b"STARTTLS\r\n") == b"220 2.0.0 Ready to start TLS\r\n"
    session.machine.tls_started("TLSv1.3")
    assert session.codes(b"MAIL FROM:<>\r\n") == ["503"]
    assert b"STARTTLS" not in session.send(b"EHLO x\r\n")
    assert session.codes(b"STARTTLS\r\n") == ["503"]
    session.send(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n.\r\n")
    assert session.messages[0][0].client.tls == "TLSv1.3"


def test_without_a_certificate_there_is_no_starttls():
    session = Session(offers_tls=False)
    assert b"STARTTLS" not in session.send(b"EHLO x\r\n")
    assert session.codes(b"STARTTLS\r\n") == ["502"]


def test_commands_sent_in_clear_behind_starttls_are_dropped():
    """CVE-2011-0411: behind the STARTTLS in the same packet, and before the handshake."""
    session = Session().hello()
    injected = b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nforged\r\n.\r\n"
    assert session.codes(b"STARTTLS\r\n" + injected) == ["220"]
    assert session.send(b"EHLO x\r\n" + injected) == b""
    session.machine.tls_started("TLSv1.3")
    assert session.codes(b"NOOP\r\n") == ["250"]
    assert not session.messages


def test_the_session_can_be_ended_from_this_side():
    session = Session().hello()
    session.machine.end(SHUTTING_DOWN)
    assert session.send(b"") == SHUTTING_DOWN.wire
    assert session.ended
    session.machine.accept_message("late")  # the commit comes after the end: no reply
    assert session.send(b"NOOP\r\n") == b""


def test_a_decision_that_is_not_expected_raises():
    with pytest.raises(RuntimeError):
        Session().machine.accept_recipient(None)
