"""Faults by real clients: one test for each effect and each selector."""

import smtplib
import socket
import time
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from sendback.faults.rules import FaultError
from sendback.store.engine.errors import AlreadyExistsError, NotFoundError
from tests.partners.clients import MAIL, send_mail, ses
from tests.partners.faults import counters, fail
from tests.partners.server import Server
from tests.partners.waiting import wait_for


def stored_messages(server):
    return server.run(server.app.messages.list(server.settings.account_id, 10, None))


def client(server, host="127.0.0.1"):
    return smtplib.SMTP(
        "127.0.0.1", server.smtp_port, local_hostname="mx.test", source_address=(host, 0)
    )


def test_a_reply_at_connect_replaces_the_greeting(server):
    fail(server, "connect", reply="421 4.3.2 Down for maintenance", first=1)
    with pytest.raises(smtplib.SMTPConnectError) as refused:
        client(server)
    assert refused.value.smtp_code == 421
    assert refused.value.smtp_error == b"4.3.2 Down for maintenance"
    send_mail(server.smtp_port)


def test_a_reply_at_mail(server):
    fail(server, "mail", reply="451 4.7.1 Greylisted", first=1)
    with client(server) as smtp:
        smtp.ehlo()
        assert smtp.mail("a@sender.example") == (451, b"4.7.1 Greylisted")
        assert smtp.rcpt("bob@example.com")[0] == 503
        assert smtp.mail("a@sender.example")[0] == 250


def test_a_reply_at_rcpt_is_for_one_recipient(server):
    fail(server, "rcpt", recipient="full@example.com", reply="452 4.2.2 Mailbox full")
    with client(server) as smtp:
        assert smtp.sendmail("a@sender.example", ["full@example.com", "bob@example.com"], MAIL) == {
            "full@example.com": (452, b"4.2.2 Mailbox full")
        }


def test_a_reply_at_data_ends_the_transaction(server):
    fail(server, "data", reply="554 5.7.1 No", first=1)
    with client(server) as smtp:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            smtp.sendmail("a@sender.example", ["bob@example.com"], MAIL)
        assert refused.value.smtp_code == 554
        assert smtp.rcpt("bob@example.com")[0] == 503
        smtp.sendmail("a@sender.example", ["bob@example.com"], MAIL)


def test_a_reply_to_the_content_stores_nothing(server):
    fail(server, "end", reply="552 5.3.4 Too big for today", only=1)
    with client(server) as smtp:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            smtp.sendmail("a@sender.example", ["bob@example.com"], MAIL)
        assert refused.value.smtp_error == b"5.3.4 Too big for today"
        smtp.sendmail("a@sender.example", ["bob@example.com"], MAIL)
    assert len(stored_messages(server)) == 1


def test_a_reply_421_closes_the_connection(server):
    fail(server, "rcpt", reply="421 4.3.2 Going down")
    with client(server) as smtp:
        smtp.ehlo()
        smtp.mail("a@sender.example")
        assert smtp.rcpt("bob@example.com")[0] == 421
        with pytest.raises(smtplib.SMTPServerDisconnected):
            smtp.noop()


@pytest.mark.parametrize("at", ["connect", "mail", "rcpt", "data", "end"])
def test_a_dropped_connection(server, at):
    fail(server, at, drop=True, first=1)
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        with client(server) as smtp:
            smtp.sendmail("a@sender.example", ["bob@example.com"], MAIL)
    send_mail(server.smtp_port)


@pytest.mark.parametrize("at", ["connect", "mail", "rcpt", "data", "end"])
def test_a_delay_comes_before_the_usual_reply(server, at):
    fail(server, at, delay=0.3, only=1)
    began = time.monotonic()
    send_mail(server.smtp_port)
    assert time.monotonic() - began >= 0.3  # what is bounded from above is not tested


def test_a_delay_comes_before_the_effect(server):
    fail(server, "rcpt", delay=0.01, reply="550 5.1.1 Gone")
    with client(server) as smtp:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            smtp.sendmail("a@sender.example", ["bob@example.com"], MAIL)


def test_a_client_that_leaves_during_a_delay_leaves_nothing(server):
    fail(server, "end", delay=600, first=1)
    smtp = client(server)
    smtp.ehlo()
    smtp.mail("a@sender.example")
    smtp.rcpt("bob@example.com")
    smtp.docmd("DATA")
    smtp.send(MAIL + b".\r\n")
    wait_for(lambda: counters(server)["fault-1"] == (1, 1))
    smtp.close()
    send_mail(server.smtp_port)
    assert len(stored_messages(server)) == 1


def test_pipelined_commands_get_their_replies_in_order(server):
    fail(server, "mail", reply="451 4.7.1 Later", first=1)
    fail(server, "rcpt", recipient="b@example.com", reply="450 4.2.1 Busy")
    commands = [
        b"EHLO mx.test", b"MAIL FROM:<a@sender.example>", b"RCPT TO:<b@example.com>", b"RSET",
        b"MAIL FROM:<a@sender.example>", b"RCPT TO:<a@example.com>", b"RCPT TO:<b@example.com>",
        b"QUIT",
    ]  # fmt: skip
    with socket.create_connection(("127.0.0.1", server.smtp_port)) as line:
        line.sendall(b"\r\n".join(commands) + b"\r\n")
        with line.makefile("rb") as replies:
            codes = [reply[:3] for reply in replies if reply[3:4] == b" "]
    assert codes == [b"220", b"250", b"451", b"503", b"250", b"250", b"250", b"450", b"221"]


@pytest.mark.parametrize(
    ("selector", "refused"),
    [
        ({"sender": "ann@sender.example"}, True),
        ({"sender": "ANN@Sender.Example"}, True),
        ({"sender": "*@sender.example"}, True),
        ({"sender": "sender.example"}, True),
        ({"sender": "*"}, True),
        ({"sender": "a?n@*.example"}, True),
        ({"sender": "bob@sender.example"}, False),
        ({"sender": "<>"}, False),
        ({"recipient": "example.com"}, True),
        ({"recipient": "*@example.org"}, False),
        ({"client": "127.0.0.0/8"}, True),
        ({"client": "127.0.0.1"}, True),
        ({"client": "127.0.0.2"}, False),
        ({"client": "::1"}, False),
    ],
)
@pytest.mark.parametrize("at", ["rcpt", "data", "end"])
def test_selectors_of_smtp(server, at, selector, refused):
    fail(server, at, reply="550 5.7.1 No", **selector)
    with client(server) as smtp:
        try:
            smtp.sendmail("ann@sender.example", ["bob@example.com"], MAIL)
        except smtplib.SMTPResponseException as error:
            assert refused, error
        except smtplib.SMTPRecipientsRefused as error:
            assert refused, error
        else:
            assert not refused


def test_the_null_sender_is_selected_by_itself(server):
    fail(server, "mail", sender="<>", reply="550 5.7.1 No bounces")
    with client(server) as smtp:
        smtp.ehlo()
        assert smtp.mail("")[0] == 550
        assert smtp.mail("a@sender.example")[0] == 250


def test_a_client_is_selected_by_its_address(server):
    fail(server, "connect", client="127.0.0.2/32", reply="554 5.7.1 Not you")
    with pytest.raises(smtplib.SMTPConnectError):
        client(server, "127.0.0.2")
    with client(server) as smtp:
        assert smtp.noop()[0] == 250


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("Throttling", 400),
        ("ServiceUnavailable", 503),
        ("InternalFailure", 500),
        ("MessageRejected", 400),
        ("AccountSendingPausedException", 400),
        ("RequestExpired", 400),
        ("AccessDenied", 403),
    ],
)
def test_an_error_of_the_api(server, code, status):
    fail(server, "api", operation="GetSendQuota", error=code, text="On purpose", first=1)
    with pytest.raises(ClientError) as failed:
        server.ses.get_send_quota()
    assert failed.value.response["Error"]["Code"] == code
    assert failed.value.response["Error"]["Message"] == "On purpose"
    assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    server.ses.list_identities()
    server.ses.get_send_quota()


def test_boto_retries_a_throttled_call(server):
    fail(server, "api", operation="GetSendQuota", error="Throttling", first=2)
    answer = server.ses_client(retries={"max_attempts": 3, "mode": "standard"}).get_send_quota()
    assert answer["ResponseMetadata"]["RetryAttempts"] == 2
    assert counters(server) == {"fault-1": (3, 2)}


def test_a_lost_answer_is_to_a_call_that_was_made(server):
    fail(server, "api", operation="VerifyDomainIdentity", lost=True, first=1)
    with pytest.raises(ConnectionClosedError):
        server.ses.verify_domain_identity(Domain="example.org")
    assert "example.org" in server.ses.list_identities()["Identities"]


def test_the_answer_of_a_refused_call_is_lost_too(server):
    fail(server, "api", operation="SendBounce", lost=True, first=1)
    with pytest.raises(ConnectionClosedError):
        server.send_bounce(bounce_sender="nobody@elsewhere.example")
    assert server.outbox() == []


def test_a_dropped_call_is_not_made(server):
    fail(server, "api", operation="VerifyDomainIdentity", drop=True, first=1)
    with pytest.raises(ConnectionClosedError):
        server.ses.verify_domain_identity(Domain="example.org")
    assert server.ses.list_identities()["Identities"] == ["example.com"]


def test_a_delay_of_the_api(server):
    fail(server, "api", delay=600, operation="GetSendQuota")
    with pytest.raises(ReadTimeoutError):
        ses(server.endpoint, read_timeout=0.2).get_send_quota()


def test_a_caller_is_selected_by_its_address(server):
    fail(server, "api", client="192.0.2.0/24", error="Throttling")
    server.ses.get_send_quota()
    fail(server, "api", client="127.0.0.1", error="Throttling")
    with pytest.raises(ClientError):
        server.ses.get_send_quota()


def test_an_unsigned_call_is_refused_before_any_fault(server):
    fail(server, "api", error="Throttling")
    with pytest.raises(ClientError) as failed:
        server.ses_client(secret="wrong").get_send_quota()
    assert failed.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
    assert counters(server) == {"fault-1": (0, 0)}


@pytest.mark.parametrize(
    ("effect", "reply"),
    [
        ({"reply": "451 4.7.1 Greylisted"}, "451 4.7.1 Greylisted"),
        ({"failure": "temporary", "text": "Busy"}, "451 4.0.0 Busy"),
    ],
)
def test_a_temporary_failure_of_a_delivery_is_retried(server, clock, effect, reply):
    name = fail(server, "delivery", first=1, **effect)
    bounce = server.send_bounce()
    assert server.bounce(bounce).state == "queued"
    attempt = server.attempts(bounce)[0]
    assert (attempt.outcome, attempt.peer, attempt.reply) == (
        "temporary", f"injected ({name})", reply,
    )  # fmt: skip
    clock.advance(timedelta(hours=1))
    server.app.delivery.wake()
    wait_for(lambda: server.bounce(bounce).state != "queued")
    assert [entry.outcome for entry in server.attempts(bounce)] == ["temporary", "captured"]


@pytest.mark.parametrize("effect", [{"reply": "550 5.1.1 Gone"}, {"failure": "permanent"}])
def test_a_permanent_failure_of_a_delivery_ends_it(server, effect):
    fail(server, "delivery", **effect)
    assert server.bounce(server.send_bounce()).state == "failed"


@pytest.mark.parametrize(
    ("selector", "state"),
    [
        ({"recipient": "ann@sender.example"}, "failed"),
        ({"recipient": "example.com"}, "captured"),
        ({"sender": "mailer-daemon@example.com"}, "failed"),
        ({"sender": "sender.example"}, "captured"),
    ],
)
def test_selectors_of_deliveries(server, selector, state):
    fail(server, "delivery", failure="permanent", **selector)
    assert server.bounce(server.send_bounce()).state == state


RULES = """
active_rule_set = "main"

[[rule_sets.main.rules]]
Name = "store"

[[rule_sets.main.rules.Actions]]
AddHeaderAction = { HeaderName = "X-Seen", HeaderValue = "yes" }

[[rule_sets.main.rules.Actions]]
S3Action = { BucketName = "inbound" }

[buckets]
inbound = "directory:objects"
"""


def test_a_temporary_failure_of_an_action_is_retried(running, clock):
    server = running(action_retry_first="1s")
    server.ses.verify_domain_identity(Domain="example.com")
    server.set_up(RULES)
    fail(server, "action", action="S3", failure="temporary", text="Disk full", first=1)
    message = server.send_mail()
    step = next(s for s in server.steps(message, until_done=False) if s.action == "S3")
    assert (step.outcome, step.result) == ("retry", "injected (fault-1): Disk full")
    clock.advance(timedelta(hours=1))
    server.app.processing.wake()
    assert server.steps(message)[-1].outcome == "done"


def test_a_permanent_failure_of_an_action_is_final(server):
    server.set_up(RULES)
    fail(server, "action", action="S3", failure="permanent")
    steps = server.steps(server.send_mail())
    assert [(step.action, step.outcome) for step in steps] == [
        ("AddHeader", "done"), ("S3", "failed"),
    ]  # fmt: skip
    assert steps[1].result.startswith("injected (fault-1)")


@pytest.mark.parametrize(
    ("selector", "outcome"),
    [
        ({"action": "S3"}, "failed"),
        ({"action": "Lambda"}, "done"),
        ({"sender": "sender.example"}, "failed"),
        ({"recipient": "example.org"}, "done"),
    ],
)
def test_selectors_of_actions(server, selector, outcome):
    server.set_up(RULES)
    fail(server, "action", failure="permanent", **selector)
    assert server.steps(server.send_mail())[-1].outcome == outcome


@pytest.mark.parametrize(
    ("count", "refused"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"first": 2}, [1, 2]),
        ({"every": 3}, [3, 6]),
        ({"from_": 5}, [5, 6]),
        ({"only": 4}, [4]),
        ({"probability": 0.5, "seed": 1}, None),
    ],
)
def test_counts_are_across_connections(server, count, refused):
    name = fail(server, "mail", reply="451 4.0.0 Later", **count)
    seen = []
    for number in range(1, 7):
        with client(server) as smtp:
            smtp.ehlo()
            if smtp.mail("a@sender.example")[0] != 250:
                seen.append(number)
    if refused is None:
        rule = server.app.faults.from_json({"at": "mail", "drop": True, **count})
        refused = [number for number in range(1, 7) if rule.is_due(number)]
        assert 0 < len(refused) < 6
    assert seen == refused
    assert counters(server) == {name: (6, len(refused))}


def test_each_rule_counts_for_itself_and_the_first_that_is_due_wins(server):
    fail(server, "mail", name="a", reply="451 4.0.1 A", first=1)
    fail(server, "mail", name="b", reply="451 4.0.2 B", first=2)
    with client(server) as smtp:
        smtp.ehlo()
        replies = [smtp.mail("a@sender.example")[1] for _ in range(2)]
        assert smtp.mail("a@sender.example")[0] == 250
    assert replies == [b"4.0.1 A", b"4.0.2 B"]
    assert counters(server) == {"a": (3, 1), "b": (3, 1)}


def test_a_rule_is_in_force_when_its_call_has_returned(server):
    with client(server) as smtp:
        smtp.ehlo()
        for _ in range(50):
            name = fail(server, "mail", reply="451 4.0.0 Later")
            assert smtp.mail("a@sender.example")[0] == 451
            server.run(server.app.faults.remove(name))
            assert smtp.mail("a@sender.example")[0] == 250
            smtp.rset()


def test_rules_are_listed_in_order_removed_and_cleared(server):
    faults = server.app.faults
    assert [fail(server, "mail", drop=True) for _ in range(2)] == ["fault-1", "fault-2"]
    fail(server, "mail", name="mine", drop=True)
    with pytest.raises(AlreadyExistsError):
        fail(server, "mail", name="mine", drop=True)
    server.run(faults.remove("fault-1"))
    with pytest.raises(NotFoundError):
        server.run(faults.remove("fault-1"))
    assert list(counters(server)) == ["fault-2", "mine"]
    assert server.run(faults.clear()) == 2
    assert counters(server) == {}


@pytest.mark.parametrize("outbound", ["mx", "smtp://127.0.0.1:9"])
def test_a_fault_at_delivery_needs_capture(running, outbound):
    server = running(outbound=outbound)
    with pytest.raises(FaultError, match=outbound[:2] if outbound == "mx" else "not capture"):
        fail(server, "delivery", failure="temporary")


def test_by_mx_no_fault_is_added_or_injected(running, clock, caplog):
    first = running()
    fail(first, "mail", drop=True)
    data_dir = first.settings.data_dir
    first.stop()
    second = Server(clock=clock, data_dir=data_dir, outbound="mx", dns="system").start()
    try:
        second.ses.verify_domain_identity(Domain="example.com")
        send_mail(second.smtp_port)
        assert counters(second) == {"fault-1": (0, 0)}
        with pytest.raises(FaultError, match="outbound is mx"):
            fail(second, "mail", drop=True)
        assert second.run(second.app.faults.clear()) == 1
    finally:
        second.stop()


def test_a_start_with_faults_is_logged(running, clock, caplog):
    server = running()
    fail(server, "mail", name="greylist", drop=True)
    caplog.clear()
    server.run(server.app.faults.warn())
    assert "faults_active names=greylist" in caplog.text
