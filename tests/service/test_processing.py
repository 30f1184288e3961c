"""Mail goes through its rules: what is done, tried again, given up, and what it costs."""

import base64
import json
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from sendback.actions.sns_message import signed_text
from sendback.dsn.parse import parse
from sendback.store.access.installation import AcquireLock
from sendback.store.engine.content.ledger import WithdrawOldClaims
from sendback.store.engine.sweeping import SweepAlone
from sendback.store.rules.processing import FindProcessing
from sendback.store.rules.processing_control import RetryProcessing
from sendback.store.rules.rule_sets import LoadRules
from tests.partners.clients import MAIL
from tests.partners.listener import Listener
from tests.partners.waiting import wait_for
from tests.partners.webhook import Webhook

TOPIC = "arn:aws:sns:us-east-1:000000000000:topic"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"
BOUNCE = (
    '{ BounceAction = { SmtpReplyCode = "550", StatusCode = "5.1.1", '
    'Message = "Mailbox does not exist", Sender = "mailer-daemon@example.com" } }'
)
HEADER = '{ AddHeaderAction = { HeaderName = "X-Seen", HeaderValue = "yes" } }'
STORE = '{ S3Action = { BucketName = "mail" } }'
PUBLISH = f'{{ SNSAction = {{ TopicArn = "{TOPIC}" }} }}'
CALL = f'{{ LambdaAction = {{ FunctionArn = "{FUNCTION}" }} }}'
ASK = f'{{ LambdaAction = {{ FunctionArn = "{FUNCTION}", InvocationType = "RequestResponse" }} }}'


def setup(*rules, **targets):
    """`rules` are (recipients, actions, further lines)."""
    text = 'identities = ["example.com"]\nactive_rule_set = "main"\n'
    for kind, target in targets.items():
        name = {"buckets": "mail", "topics": TOPIC, "functions": FUNCTION}.get(kind, kind)
        text += f"[{kind if kind in ('buckets', 'topics', 'functions') else 'mailboxes'}]\n"
        text += f'"{name}" = "{target}"\n'
    for number, (recipients, actions, *further) in enumerate(rules):
        text += f'[[rule_sets.main.rules]]\nName = "rule{number}"\n'
        text += f"Recipients = {json.dumps(recipients)}\n"
        text += f"Actions = [{', '.join(actions)}]\n" + "\n".join(further) + "\n"
    return text


@pytest.fixture
def ruled(running):
    """A server that looks nothing up, with these rules."""

    def start(*rules, targets=None, **flags):
        # Targets that fail or do not exist are what many of these tests are about.
        options = {"dns": "off", "send_bounce_rate": "0", "check_targets": "false", **flags}
        server = running(**options)
        server.set_up(setup(*rules, **(targets or {})))
        return server

    return start


def outcomes(steps):
    return [(step.rule, step.action, step.outcome.value) for step in steps]


# --- who is received -----------------------------------------------------------------------------


def refused(server, recipient, *, tls=False):
    with smtplib.SMTP("127.0.0.1", server.smtp_port) as smtp:
        smtp.ehlo()
        if tls:
            smtp.starttls(context=ssl._create_unverified_context())
            smtp.ehlo()
        smtp.mail("ann@sender.example")
        code, text = smtp.rcpt(recipient)
    return f"{code} {text.decode()}"


def test_only_what_a_rule_matches_is_received(ruled):
    server = ruled((["bob@example.com", ".example.com"], [HEADER]))
    assert refused(server, "bob@example.com").startswith("250 2.1.5")
    assert refused(server, "bob+tag@example.com").startswith("250 2.1.5")
    assert refused(server, "eve@example.com").startswith("550 5.1.1")
    assert refused(server, "eve@sub.example.com").startswith("250 2.1.5")
    assert refused(server, "bob@elsewhere.example").startswith("550 5.1.1")


def test_a_rule_that_is_not_enabled_receives_nothing(ruled):
    server = ruled(([], [HEADER], "Enabled = false"))
    assert refused(server, "bob@example.com").startswith("550 5.1.1")


def test_without_an_active_rule_set_ses_receives_nothing(running):
    server = running(receive_without_rules="false")
    server.ses.verify_domain_identity(Domain="example.com")
    assert refused(server, "bob@example.com").startswith("550 5.1.1")


def test_a_rule_may_require_tls(ruled):
    server = ruled(([], [HEADER]), (["bob@example.com"], [HEADER], 'TlsPolicy = "Require"'))
    assert refused(server, "bob@example.com") == "530 5.7.0 Must issue a STARTTLS command first"
    assert refused(server, "bob@example.com", tls=True).startswith("250")
    assert refused(server, "eve@example.com").startswith("250")


def test_a_filter_turns_clients_away_before_the_greeting(ruled):
    server = ruled(([], [HEADER]))
    client = server.ses
    block = {"Name": "all", "IpFilter": {"Policy": "Block", "Cidr": "0.0.0.0/0"}}
    client.create_receipt_filter(Filter=block)
    with pytest.raises(smtplib.SMTPConnectError) as raised:
        smtplib.SMTP("127.0.0.1", server.smtp_port)
    assert raised.value.smtp_code == 554
    # Known by now: decided without asking the store.
    with pytest.raises(smtplib.SMTPConnectError):
        smtplib.SMTP("127.0.0.1", server.smtp_port)
    allow = {"Name": "us", "IpFilter": {"Policy": "Allow", "Cidr": "127.0.0.1"}}
    client.create_receipt_filter(Filter=allow)
    assert refused(server, "bob@example.com").startswith("250")


def test_one_accounts_filter_is_not_anothers(ruled):
    server = ruled(([], [HEADER]))
    block = {"Name": "all", "IpFilter": {"Policy": "Block", "Cidr": "127.0.0.0/8"}}
    server.ses.create_receipt_filter(Filter=block)
    other = server.ses_of("111111111111", "bea")
    other.verify_domain_identity(Domain="example.org")
    assert refused(server, "bob@example.org").startswith("250")
    assert refused(server, "bob@example.com").startswith("550 5.7.1")


def test_every_account_of_a_domain_runs_its_own_rules(ruled):
    server = ruled((["bob@example.com"], [HEADER]))
    other = server.ses_of("111111111111", "bea")
    other.verify_domain_identity(Domain="example.com")
    message_id = server.send_mail(recipients=("bob@example.com", "eve@example.com"))
    assert outcomes(server.steps(message_id)) == [("rule0", "AddHeader", "done")]
    for client, recipient in ((server.ses, "bob"), (other, "eve")):
        client.send_bounce(
            OriginalMessageId=message_id,
            BounceSender="m@example.com",
            BouncedRecipientInfoList=[
                {"Recipient": f"{recipient}@example.com", "BounceType": "DoesNotExist"}
            ],
        )


# --- what is done --------------------------------------------------------------------------------


def test_a_bounce_action_sends_one_bounce_for_all_that_its_rule_matched(ruled):
    server = ruled((["bob@example.com", "eve@example.com"], [BOUNCE]), ([], [HEADER]))
    message_id = server.send_mail(
        recipients=("bob@example.com", "ann@example.com", "eve@example.com")
    )
    assert outcomes(server.steps(message_id)) == [
        ("rule0", "Bounce", "done"),
        ("rule1", "AddHeader", "done"),  # a bounce does not stop the rule set
    ]
    (bounce,) = server.outbox()
    assert str(bounce.recipient) == "ann@sender.example"
    assert bounce.original_message_id == message_id
    found = parse(bounce.content)
    assert [dict(recipient.fields) for recipient in found.recipients] == [
        {
            "Final-Recipient": f"rfc822; {name}@example.com",
            "Action": "failed",
            "Status": "5.1.1",
            "Diagnostic-Code": "smtp; 550 5.1.1 Mailbox does not exist",
            "Last-Attempt-Date": "Sun, 01 Mar 2026 12:00:00 +0000",
        }
        for name in ("bob", "eve")
    ]
    assert found.header_value("From") == "mailer-daemon@example.com"


def test_rules_have_no_rate_limit(ruled):
    server = ruled(([], [BOUNCE]), send_bounce_rate="1")
    for _ in range(3):
        server.steps(server.send_mail())
    assert len(server.outbox()) == 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sender": "<>"}, "null reverse-path"),
        ({"content": b"Auto-Submitted: auto-replied\r\n" + MAIL}, "automatic itself"),
        ({"content": b"Content-Type: multipart/report; x=y\r\n" + MAIL}, "report"),
        ({"content": b"Received: x\r\n" * 100 + MAIL}, "a loop"),
        ({"rcpt_options": ("NOTIFY=NEVER",)}, "NOTIFY=NEVER"),
    ],
)
def test_mail_that_no_rule_answers(ruled, options, reason):
    server = ruled(([], [BOUNCE]))
    (step,) = server.steps(server.send_mail(**options))
    assert step.outcome.value == "skipped"
    assert reason in step.result
    assert server.outbox() == []


def test_a_bounce_from_an_identity_that_has_gone_fails_and_says_so(ruled):
    server = ruled(([], [HEADER]))
    server.ses.verify_domain_identity(Domain="example.org")
    server.set_up(setup(([], [BOUNCE.replace("@example.com", "@example.org"), HEADER])))
    server.ses.delete_identity(Identity="example.org")
    first, second = server.steps(server.send_mail())
    assert first.outcome.value == "failed"
    assert "not verified" in first.result
    assert second.outcome.value == "done"


def test_headers_are_added_for_later_actions(ruled, tmp_path):
    first = '{ S3Action = { BucketName = "mail", ObjectKeyPrefix = "before" } }'
    server = ruled(
        ([], [first, HEADER]),
        ([], ['{ S3Action = { BucketName = "mail", ObjectKeyPrefix = "after" } }']),
        targets={"buckets": f"directory:{tmp_path}/mail"},
    )
    message_id = server.send_mail()
    server.steps(message_id)
    before = (tmp_path / "mail/before" / message_id).read_bytes()
    after = (tmp_path / "mail/after" / message_id).read_bytes()
    assert b"X-Seen" not in before
    assert b"\r\nX-Seen: yes\r\nFrom: Ann" in after


def test_a_large_mail_is_stored_whole(ruled, tmp_path):
    server = ruled(([], [STORE]), targets={"buckets": f"directory:{tmp_path}/mail"})
    content = MAIL + (b"x" * 70 + b"\r\n") * 20_000
    message_id = server.send_mail(content=content)
    server.steps(message_id)
    assert (tmp_path / "mail" / message_id).read_bytes().endswith(content[-1_000_000:])


def test_a_mail_of_more_than_150_kb_is_not_published_but_bounces(ruled):
    with Webhook() as hook:
        server = ruled(([], [PUBLISH]), targets={"topics": hook.url})
        content = MAIL + (b"x" * 70 + b"\r\n") * 2_500
        (step,) = server.steps(server.send_mail(content=content))
        assert hook.count == 0
    assert step.outcome.value == "done"
    (bounce,) = server.outbox()
    (recipient,) = parse(bounce.content).recipients
    assert dict(recipient.fields)["Status"] == "5.3.4"


def test_a_notice_tells_of_each_action_without_the_content(ruled, tmp_path):
    actions = [
        f'{{ S3Action = {{ BucketName = "mail", TopicArn = "{TOPIC}" }} }}',
        BOUNCE.replace("Sender", f'TopicArn = "{TOPIC}", Sender'),
        f'{{ StopAction = {{ Scope = "RuleSet", TopicArn = "{TOPIC}" }} }}',
    ]
    with Webhook() as hook:
        targets = {"buckets": f"directory:{tmp_path}/mail", "topics": hook.url}
        server = ruled(([], actions), ([], [HEADER]), targets=targets)
        message_id = server.send_mail()
        steps = server.steps(message_id)
        posts = [json.loads(json.loads(hook.next()[1])["Message"]) for _ in range(3)]
    assert [step.action for step in steps] == ["S3", "Notice", "Bounce", "Notice", "Stop", "Notice"]
    assert [post["receipt"]["action"]["type"] for post in posts] == ["S3", "Bounce", "Stop"]
    assert posts[0]["receipt"]["action"]["objectKey"] == message_id
    assert not any("content" in post for post in posts)


def test_what_is_posted_is_signed_as_sns_signs(ruled):
    with Webhook() as hook:
        server = ruled(([], [PUBLISH]), targets={"topics": hook.url})
        server.steps(server.send_mail())
        headers, body = hook.next()
    value = json.loads(body)
    assert headers["x-amz-sns-message-type"] == value["Type"] == "Notification"
    assert headers["x-amz-sns-topic-arn"] == value["TopicArn"] == TOPIC
    assert headers["x-amz-sns-message-id"] == value["MessageId"]
    assert headers["Content-Type"] == "text/plain; charset=UTF-8"
    assert value["Subject"] == "Amazon SES Email Receipt Notification"
    assert value["SignatureVersion"] == "2"
    with urllib.request.urlopen(value["SigningCertURL"]) as answer:
        certificate = x509.load_pem_x509_certificate(answer.read())
    certificate.public_key().verify(
        base64.b64decode(value["Signature"]),
        signed_text(value).encode(),
        padding.PKCS1v15(),
        hashes.SHA256(),
    )
    assert signed_text(value).startswith("Message\n{")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(value["SigningCertURL"].replace("Service-", "Service-0"))


def test_workmail_and_connect_are_smtp_servers_or_nothing(ruled):
    organization = "arn:aws:workmail:us-east-1:000000000000:organization/m-1"
    instance = (
        "arn:aws:connect:us-east-1:000000000000:instance/12345678-1234-1234-1234-123456789012"
    )
    role = "arn:aws:iam::000000000000:role/r"
    actions = [
        f'{{ WorkmailAction = {{ OrganizationArn = "{organization}" }} }}',
        f'{{ ConnectAction = {{ InstanceARN = "{instance}", IAMRoleARN = "{role}" }} }}',
        HEADER,
    ]
    with Listener() as inbox:
        server = ruled((["bob@example.com"], actions), targets={organization: inbox.url})
        message_id = server.send_mail()
        delivered = inbox.next()
        wait_for(lambda: len(server.steps(message_id, until_done=False)) == 3)
        steps = server.steps(message_id, until_done=False)
    assert delivered.sender == "ann@sender.example"
    assert delivered.recipients == ["bob@example.com"]
    assert delivered.content.endswith(b"Are you free on Friday?\r\n")
    assert outcomes(steps) == [
        ("rule0", "WorkMail", "done"),
        ("rule0", "Connect", "retry"),
        ("rule0", "AddHeader", "done"),
    ]
    assert "nothing is known about the mailbox" in steps[1].result


# --- what fails ----------------------------------------------------------------------------------


def test_a_bucket_that_refuses_is_tried_again_and_the_rest_goes_on(ruled, clock, tmp_path):
    (tmp_path / "mail").write_text("in the way")
    server = ruled(([], [STORE, BOUNCE]), targets={"buckets": f"directory:{tmp_path}/mail"})
    message_id = server.send_mail()
    wait_for(server.outbox)
    steps = server.steps(message_id, until_done=False)
    assert outcomes(steps) == [("rule0", "S3", "retry"), ("rule0", "Bounce", "done")]
    wait = steps[0].due_at - steps[0].last_at
    assert timedelta(seconds=16) <= wait <= timedelta(seconds=24)
    (tmp_path / "mail").unlink()
    clock.advance(timedelta(seconds=25))
    steps = server.steps(message_id)
    assert outcomes(steps) == [("rule0", "S3", "done"), ("rule0", "Bounce", "done")]
    assert steps[0].attempts == 2
    assert (tmp_path / "mail" / message_id).exists()
    assert len(server.outbox()) == 1


def test_an_action_is_given_up_after_four_hours(ruled, clock, tmp_path):
    (tmp_path / "mail").write_text("in the way")
    server = ruled(([], [STORE]), targets={"buckets": f"directory:{tmp_path}/mail"})
    message_id = server.send_mail()
    server.steps(message_id, until_done=False)
    for attempts in range(2, 30):
        clock.advance(timedelta(minutes=25))
        wait_for(
            lambda attempts=attempts: (
                server.steps(message_id, until_done=False)[0].attempts >= attempts
                or server.steps(message_id, until_done=False)[0].outcome.value == "expired"
            )
        )
        (step,) = server.steps(message_id, until_done=False)
        if step.outcome.value == "expired":
            break
    (step,) = server.steps(message_id)
    assert step.outcome.value == "expired"
    assert "mail" in step.result
    spent = step.last_at - step.first_at
    assert timedelta(hours=3) < spent <= timedelta(hours=4, minutes=30)


def test_a_webhook_is_tried_as_sns_tries_it(ruled, clock):
    with Webhook(*[(503, b"", 0.0)] * 4) as hook:
        server = ruled(([], [PUBLISH, HEADER]), targets={"topics": hook.url})
        message_id = server.send_mail()
        for count in (1, 2, 3, 4):
            # Recorded, not only posted: the next wait begins with the record.
            wait_for(
                lambda count=count: any(
                    step.attempts == count
                    for step in server.steps(message_id, until_done=False)
                    if step.action == "SNS"
                )
            )
            clock.advance(timedelta(seconds=21))
        steps = server.steps(message_id)
    assert outcomes(steps) == [("rule0", "SNS", "failed"), ("rule0", "AddHeader", "done")]
    assert steps[0].attempts == 4
    assert "answered 503" in steps[0].result
    assert hook.count == 4


@pytest.mark.parametrize("status", [400, 403, 410])
def test_a_webhook_that_refuses_is_not_asked_again(ruled, status):
    with Webhook((status, b"", 0.0)) as hook:
        server = ruled(([], [PUBLISH]), targets={"topics": hook.url})
        (step,) = server.steps(server.send_mail())
    assert (step.outcome.value, step.attempts) == ("failed", 1)


def test_a_redirect_is_not_followed(ruled):
    with Webhook((302, b"", 0.0)) as hook:
        server = ruled(([], [PUBLISH]), targets={"topics": hook.url})
        message_id = server.send_mail()
        (step,) = server.steps(message_id, until_done=False)
        assert step.outcome.value == "retry"
        assert "redirects are not followed" in step.result
        assert hook.count == 1


def test_a_webhook_on_a_private_address_needs_the_setting(ruled):
    with Webhook() as hook, Listener() as inbox:
        server = ruled(([], [PUBLISH]), targets={"topics": hook.url}, outbound=inbox.url)
        (step,) = server.steps(server.send_mail())
        assert hook.count == 0
    assert step.outcome.value == "failed"
    assert "private_targets" in step.result


def test_what_a_function_decides_waits_for_it_and_what_it_does_not_does_not(ruled, clock):
    stop = b'{"disposition": "stop_rule"}'
    answers = [(500, b"", 0.0), (200, b"", 0.0), (200, stop, 0.0)]
    with Webhook(*answers) as hook:
        server = ruled(([], [BOUNCE, ASK, BOUNCE]), ([], [HEADER]), targets={"functions": hook.url})
        message_id = server.send_mail()
        wait_for(lambda: hook.count == 1)
        wait_for(lambda: len(server.steps(message_id, until_done=False)) == 2)
        assert outcomes(server.steps(message_id, until_done=False)) == [
            ("rule0", "Bounce", "done"),
            ("rule0", "Lambda", "retry"),
        ]
        other = server.send_mail()  # other mail goes on
        server.steps(other)
        clock.advance(timedelta(seconds=25))
        steps = server.steps(message_id)
    assert outcomes(steps) == [
        ("rule0", "Bounce", "done"),
        ("rule0", "Lambda", "done"),
        ("rule1", "AddHeader", "done"),
    ]


def test_a_function_that_is_not_waited_for_holds_nothing_up(ruled):
    with Webhook((200, b"ignored", 1.0)) as hook:
        server = ruled(([], [CALL, BOUNCE]), targets={"functions": hook.url})
        message_id = server.send_mail()
        hook.next()
        steps = server.steps(message_id)
    assert outcomes(steps) == [("rule0", "Lambda", "done"), ("rule0", "Bounce", "done")]
    assert steps[0].milliseconds >= 1000


def test_a_message_goes_by_the_rules_as_they_were_when_it_came(ruled, clock):
    with Webhook((500, b"", 0.0)) as hook:
        server = ruled(([], [ASK, BOUNCE]), targets={"functions": hook.url})
        message_id = server.send_mail()
        wait_for(lambda: hook.count == 1)
        wait_for(lambda: server.steps(message_id, until_done=False))
        server.set_up(setup(([], [HEADER])))
        server.run(server.app.housekeeping.sweep())  # the old version is still needed
        clock.advance(timedelta(seconds=25))
        assert outcomes(server.steps(message_id)) == [
            ("rule0", "Lambda", "done"),
            ("rule0", "Bounce", "done"),
        ]
        assert outcomes(server.steps(server.send_mail())) == [("rule0", "AddHeader", "done")]


def test_content_is_kept_for_as_long_as_its_rules_work(ruled, clock, tmp_path):
    (tmp_path / "mail").write_text("in the way")
    server = ruled(
        ([], [STORE]),
        targets={"buckets": f"directory:{tmp_path}/mail"},
        retention="1h",
        bounce_window="1h",
    )
    message_id = server.send_mail()
    server.steps(message_id, until_done=False)
    (tmp_path / "mail").unlink()
    clock.advance(timedelta(hours=2))
    server.run(server.app.housekeeping.sweep())
    server.steps(message_id)
    assert (tmp_path / "mail" / message_id).read_bytes().endswith(b"Friday?\r\n")


# --- what it costs -------------------------------------------------------------------------------


def test_a_rule_driven_bounce_is_one_transaction_more(ruled):
    server = ruled(([], [HEADER, BOUNCE]))
    writes = []
    write = server.app.store.write
    housekeeping = SweepAlone | AcquireLock | WithdrawOldClaims  # begins with the server

    async def counted(unit):
        if not isinstance(unit, housekeeping):
            writes.append(type(unit).__name__)
        return await write(unit)

    server.app.store.write = counted
    server.bounce(_bounce_of(server, server.send_mail()))
    wait_for(lambda: "RecordAttempt" in writes)
    ours = [name for name in writes if name not in {"TakeLeases", "TakeProcessing"}]
    assert ours == ["AddMessages", "RecordProgress", "RecordAttempt"]


def _bounce_of(server, message_id):
    server.steps(message_id)
    (bounce,) = server.outbox()
    return bounce.message_id


# --- what breaks ---------------------------------------------------------------------------------


def breaking(server, monkeypatch, error, action):
    """From now on a certain action raises; returns what mends it."""
    steps = server.app.steps
    take = steps.take

    async def take_or_break(task, context):
        if type(task).__name__.startswith(action):
            raise error.with_traceback(None)
        return await take(task, context)

    monkeypatch.setattr(steps, "take", take_or_break)
    return monkeypatch.undo


def state_of(server, message_id):
    found = server.run(server.app.store.read(FindProcessing("000000000000", message_id)))
    return found[0].state.value, found[0].reason


def until_held(server, clock, message_id):
    """Moves the clock on until the message is held; returns its steps."""
    for _ in range(40):
        if state_of(server, message_id)[0] == "held":
            return server.steps(message_id, until_done=False)
        clock.advance(timedelta(minutes=25))
        server.app.processing.wake()
        time.sleep(0.2)
    raise AssertionError(state_of(server, message_id))


@pytest.mark.parametrize(
    "error",
    [
        RecursionError("deep"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "x"),
        KeyError(1),
    ],
    ids=repr,
)
def test_an_error_of_ours_never_counts_as_an_answer(ruled, clock, monkeypatch, error):
    """The function cannot be called: nothing behind it is done, and the message is set aside."""
    stop = (200, b'{"disposition": "stop_rule_set"}', 0.0)
    with Webhook(*[stop] * 10) as hook:
        server = ruled(([], [ASK, BOUNCE]), ([], [BOUNCE]), targets={"functions": hook.url})
        mend = breaking(server, monkeypatch, error, "LambdaAction")
        message_id = server.send_mail()
        wait_for(lambda: server.steps(message_id, until_done=False))
        other = server.send_mail()
        (step,) = until_held(server, clock, message_id)
        assert (step.outcome.value, step.attempts, step.broken) == ("retry", 5, 5)
        state, reason = state_of(server, message_id)
        assert state == "held"
        assert reason.startswith("rule rule0, Lambda, 5 times: internal error: ")
        assert type(error).__name__ in reason
        assert server.outbox() == []
        until_held(server, clock, other)
        # Retried by hand, once the program is mended.
        mend()
        unit = RetryProcessing("000000000000", (message_id, other), clock.now())
        assert server.run(server.app.store.write(unit)) == 2
        server.app.processing.wake()
        assert outcomes(server.steps(message_id)) == [("rule0", "Lambda", "done")]
        assert server.outbox() == []  # it answered STOP_RULE_SET
        assert state_of(server, message_id) == ("done", None)


def test_an_error_of_ours_beside_a_partner_that_fails(ruled, clock, monkeypatch, tmp_path):
    """Attempts at another step are no results of the step that breaks."""
    (tmp_path / "mail").write_text("in the way")
    server = ruled(
        ([], [STORE, PUBLISH]),
        targets={"buckets": f"directory:{tmp_path}/mail", "topics": "http://127.0.0.1:9/"},
    )
    breaking(server, monkeypatch, KeyError("a bug"), "SNSAction")
    message_id = server.send_mail()
    wait_for(lambda: server.steps(message_id, until_done=False))
    steps = until_held(server, clock, message_id)
    assert [(step.action, step.broken) for step in steps] == [("S3", 0), ("SNS", 5)]


def test_a_message_whose_rules_are_gone_is_held_and_others_go_on(ruled, clock):
    with Webhook((500, b"", 0.0)) as hook:
        server = ruled(([], [ASK]), targets={"functions": hook.url})
        message_id = server.send_mail()
        wait_for(lambda: server.steps(message_id, until_done=False))
        server.set_up(setup(([], [HEADER])))
        version = "0" * 64
        server.query(
            "UPDATE processing SET version = :version WHERE message_id = :id",
            version=version,
            id=message_id,
        )
        other = server.send_mail()
        until_held(server, clock, message_id)
        assert state_of(server, message_id) == (
            "held", f"the rules of version {version} are gone",
        )  # fmt: skip
        assert server.steps(other)


@pytest.mark.parametrize(("failure", "behind"), [("continue", True), ("stop", False)])
@pytest.mark.parametrize("answer", [(500, b"", 0.0), (200, b"no JSON", 0.0)])
def test_what_a_function_counts_as_that_cannot_be_called(ruled, clock, failure, behind, answer):
    answers = [answer] * 100
    with Webhook(*answers) as hook:
        server = ruled(
            ([], [ASK, BOUNCE]),
            ([], [BOUNCE]),
            targets={"functions": hook.url},
            function_failure=failure,
            action_give_up_after="1m",
        )
        message_id = server.send_mail()
        wait_for(lambda: server.steps(message_id, until_done=False))
        for _ in range(6):
            clock.advance(timedelta(minutes=5))
            server.app.processing.wake()
            time.sleep(0.2)
        steps = server.steps(message_id)
    assert steps[0].outcome.value == "expired"
    assert (len(steps) > 1, bool(server.outbox())) == (behind, behind)
    assert ("counts as STOP_RULE_SET (function_failure)" in steps[0].result) is not behind
    assert steps[0].disposition.value == ("CONTINUE" if behind else "STOP_RULE_SET")


def test_a_step_that_never_ends_is_a_failure_of_its_partner(ruled, monkeypatch):
    import asyncio

    monkeypatch.setattr("sendback.service.rules.run._STEP_SECONDS", 0.1)
    server = ruled(([], [CALL, BOUNCE]))
    steps = server.app.steps
    take = steps.take

    async def for_ever(task, context):
        if type(task).__name__ == "LambdaAction":
            await asyncio.Event().wait()
        return await take(task, context)

    monkeypatch.setattr(steps, "take", for_ever)
    message_id = server.send_mail()
    wait_for(lambda: len(server.steps(message_id, until_done=False)) == 2)
    step = server.steps(message_id, until_done=False)[0]
    assert (step.outcome.value, step.broken) == ("retry", 0)
    assert "had not ended after 0.1 s" in step.result


# --- rules that change meanwhile -----------------------------------------------------------------


@pytest.mark.parametrize("by", ["sweep", "hand"])
def test_mail_accepted_under_rules_that_are_gone_is_processed_by_them(ruled, clock, by):
    """The rules change during DATA, and their version is deleted before the message is kept."""
    server = ruled(([], [HEADER]))
    with smtplib.SMTP("127.0.0.1", server.smtp_port) as smtp:
        smtp.ehlo()
        smtp.mail("ann@sender.example")
        assert smtp.rcpt("bob@example.com")[0] == 250
        smtp.putcmd("DATA")
        assert smtp.getreply()[0] == 354
        server.set_up(setup(([], [BOUNCE])))
        if by == "sweep":
            server.run(server.app.housekeeping.sweep())
            clock.advance(timedelta(days=2))  # as if the process had been asleep for two days
            server.run(server.app.housekeeping.sweep())
        else:
            used = "SELECT version FROM rule_sets"
            server.query(f"DELETE FROM rule_set_versions WHERE version NOT IN ({used})")
        smtp.send(MAIL + b".\r\n")
        code, reply = smtp.getreply()
    assert code == 250
    message_id = reply.decode().split()[1]
    assert outcomes(server.steps(message_id)) == [("rule0", "AddHeader", "done")]
    assert server.outbox() == []
    # Another process, or this one after a restart, can load the rules.
    found = server.run(server.app.store.read(FindProcessing("000000000000", message_id)))
    assert server.run(server.app.store.read(LoadRules(found[0].version)))


def test_a_version_that_has_just_been_replaced_outlives_the_sweep(ruled):
    server = ruled(([], [HEADER]))
    server.set_up(setup(([], [BOUNCE])))
    server.run(server.app.housekeeping.sweep())
    assert server.query("SELECT count(*) FROM rule_set_versions") == [(2,)]
