"""`sendback.testing.Sendback` as a user of it sees it."""

import asyncio
import contextlib
import doctest
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import boto3
import pytest

import sendback.testing
from sendback.config.settings import SettingError
from sendback.faults.rules import FaultError
from sendback.service.rules.setup_file import SetupError
from sendback.testing import (
    MailRefusedError,
    NotArrivedError,
    Sendback,
    ServerError,
    UnexpectedError,
)
from tests.partners.waiting import wait_for

LAMBDA = {"InvocationType": "RequestResponse"}


@pytest.fixture(scope="module")
def module_server():
    with Sendback() as server:
        yield server


@pytest.fixture
def server(module_server):
    yield module_server
    module_server.reset()


@pytest.fixture
def receiving(server):
    server.verify("example.com")
    return server


def bounce(server, original, *recipients):
    return server.ses.send_bounce(
        OriginalMessageId=original,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[
            {"Recipient": recipient, "BounceType": "DoesNotExist"} for recipient in recipients
        ],
    )["MessageId"]


# --- receiving --------------------------------------------------------------------------------


def test_mail_is_composed_of_arguments(receiving):
    received = receiving.receive(
        sender="ann@sender.example", recipients="bob@example.com", subject="Grüße", text="Hi\n"
    )
    (mail,) = receiving.received
    assert (mail.message_id, mail.sender) == (received, "ann@sender.example")
    assert mail.recipients == ("bob@example.com",)
    assert mail.subject == "Grüße"
    assert mail.raw.endswith(b"\r\n\r\nHi\r\n")
    assert mail.state is None  # there is no active rule set


@pytest.mark.parametrize("kind", ["octets", "bare lf", "EmailMessage", "path", "text path"])
def test_a_message_may_have_many_forms(receiving, tmp_path, kind):
    text = "From: ann@sender.example\r\nTo: bob@example.com\r\nSubject: Lunch\r\n\r\nHi\r\n"
    file = tmp_path / "mail.eml"
    file.write_text(text.replace("\r\n", "\n"))
    message = EmailMessage()
    message["From"], message["To"] = "ann@sender.example", "bob@example.com"
    message["Subject"] = "Lunch"
    message.set_content("Hi\n")
    forms = {
        "octets": text.encode(),
        "bare lf": text.replace("\r\n", "\n").encode(),
        "EmailMessage": message,
        "path": file,
        "text path": str(file),
    }
    receiving.receive(forms[kind])
    mail = receiving.received.wait_for(subject="Lunch")
    assert (mail.sender, mail.recipients) == ("ann@sender.example", ("bob@example.com",))


def test_the_null_reverse_path(receiving):
    receiving.receive(sender="", recipients=["bob@example.com"])
    assert receiving.received[0].sender == ""


def test_a_refused_recipient_raises_with_the_reply(receiving):
    with pytest.raises(MailRefusedError) as caught:
        receiving.receive(recipients=["bob@example.com", "bob@other.example"])
    assert caught.value.recipient == "bob@other.example"
    assert (caught.value.command, caught.value.code) == ("RCPT", 550)
    assert caught.value.enhanced_code == "5.1.1"
    assert "550 5.1.1" in str(caught.value)
    assert len(receiving.received) == 0


def test_refused_content_raises_with_the_reply(receiving):
    with pytest.raises(MailRefusedError) as caught:
        receiving.receive(b"Subject: a\r\n\r\nbare\nline end\r\n", recipients="bob@example.com")
    assert caught.value.command == "content"
    assert caught.value.code // 100 == 5


def test_a_blocked_client_is_refused_at_once(receiving):
    receiving.ses.create_receipt_filter(
        Filter={"Name": "a", "IpFilter": {"Policy": "Block", "Cidr": "127.0.0.9/32"}}
    )
    with pytest.raises(MailRefusedError) as caught:
        receiving.receive(recipients="bob@example.com", client_ip="127.0.0.9")
    assert caught.value.code == 554
    receiving.receive(recipients="bob@example.com", client_ip="127.0.0.8")


def test_mail_without_recipients_is_an_error(receiving):
    with pytest.raises(TypeError, match="recipients"):
        receiving.receive(b"From: a@b.example\r\nSubject: x\r\n\r\n\r\n")


def test_an_unknown_verdict_is_an_error(receiving):
    with pytest.raises(TypeError, match="there is no verdict 'spv'"):
        receiving.receive(recipients="bob@example.com", verdicts={"spv": "FAIL"})


def test_verdicts_are_those_of_the_test(receiving):
    def handler(event, context):
        return event["Records"][0]["ses"]["receipt"]

    function = receiving.function("check", handler)
    receiving.rules({"Actions": [{"LambdaAction": {"FunctionArn": function.arn, **LAMBDA}}]})
    verdicts = {"spf": "PASS", "dmarc": "FAIL", "dmarc_policy": "reject"}
    received = receiving.receive(recipients="bob@example.com", verdicts=verdicts)
    receipt = function.wait_for(original=received).result
    assert receipt["spfVerdict"] == {"status": "PASS"}
    assert receipt["dmarcVerdict"] == {"status": "FAIL"}
    assert receipt["dmarcPolicy"] == "reject"
    with pytest.raises(MailRefusedError, match=r"501 5.5.4 .*spf must be one of PASS, FAIL"):
        receiving.receive(recipients="bob@example.com", verdicts={"spf": "MAYBE"})


def test_a_recorded_bucket_is_read_by_s3(receiving):
    bucket = receiving.bucket("mail")
    receiving.rules({"Actions": [{"S3Action": {"BucketName": bucket.name}}]})
    received = receiving.receive(recipients="bob@example.com")
    stored = bucket.wait_for(original=received)
    s3 = receiving.client("s3")
    assert s3.get_object(Bucket="mail", Key=stored.key)["Body"].read() == stored.content
    s3.put_object(Bucket="mail", Key="done", Body=b"", Metadata={"state": "bounced"})
    assert sorted(each.key for each in bucket) == sorted([stored.key, "done"])


# --- bounces ----------------------------------------------------------------------------------


def test_a_bounce_has_its_dsn(receiving):
    received = receiving.receive(sender="ann@sender.example", recipients="bob@example.com")
    message_id = bounce(receiving, received, "bob@example.com")
    found = receiving.bounces.wait_for(
        original=received, recipient="bob@EXAMPLE.com", to="ann@sender.example"
    )
    assert (found.message_id, found.original) == (message_id, received)
    assert (found.state, found.to) == ("captured", "ann@sender.example")
    assert found.sender == "mailer-daemon@example.com"
    assert (found.dsn.statuses, found.dsn.actions) == (("5.1.1",), ("failed",))
    assert "5.1.1" in found.dsn.recipients[0].diagnostic
    assert b"\r\nFrom: mailer-daemon@example.com\r\n" in found.raw
    assert [attempt.outcome for attempt in found.attempts] == ["captured"]


def test_a_wait_in_vain_lists_what_arrived(receiving):
    received = receiving.receive(sender="ann@sender.example", recipients="bob@example.com")
    bounce(receiving, received, "bob@example.com")
    with pytest.raises(NotArrivedError) as caught:
        receiving.bounces.wait_for(to="eve@sender.example", timeout=0.05)
    text = str(caught.value)
    assert "no bounce with to=eve@sender.example arrived in 0.05 s" in text
    assert "to ann@sender.example" in text
    assert f"{received} from <ann@sender.example> to bob@example.com" in text


def test_no_bounce_is_asserted(receiving):
    receiving.bounces.assert_none(within=0.05)
    received = receiving.receive(sender="ann@sender.example", recipients="bob@example.com")
    bounce(receiving, received, "bob@example.com")
    receiving.bounces.assert_none(original="another", within=0.05)
    with pytest.raises(UnexpectedError, match="a bounce arrived"):
        receiving.bounces.assert_none(within=5)


def test_clear_forgets_what_has_arrived(receiving):
    first = receiving.receive(recipients="bob@example.com")
    bounce(receiving, first, "bob@example.com")
    receiving.bounces.clear()
    receiving.received.clear()
    assert (len(receiving.bounces), len(receiving.received)) == (0, 0)
    second = receiving.receive(recipients="bob@example.com")
    bounce(receiving, second, "bob@example.com")
    assert receiving.bounces.wait_for().original == second
    assert [mail.message_id for mail in receiving.received] == [second]
    bounce(receiving, first, "bob@example.com")  # the server still has it


def test_verification_mails_are_sent_mail():
    with Sendback(verification="proved") as server:
        server.ses.verify_email_identity(EmailAddress="ann@sender.example")
        mail = server.sent.wait_for(to="ann@sender.example")
        assert mail.state == "captured"
        assert b"/verify?" in mail.raw.replace(b"=\r\n", b"")
        server.bounces.assert_none(within=0.01)
        with pytest.raises(UnexpectedError):
            server.sent.assert_none()


# --- rules, functions, topics, buckets --------------------------------------------------------


def test_rules_call_functions_publish_and_store(receiving):
    calls = []

    def handler(event, context):
        mail = event["Records"][0]["ses"]["mail"]
        calls.append((mail["source"], context.function_name, context.aws_request_id != ""))
        bounce(receiving, mail["messageId"], *mail["destination"])
        return {"disposition": "STOP_RULE"}

    function = receiving.function("bouncer", handler)
    topic, bucket = receiving.topic("news"), receiving.bucket("mail")
    receiving.rules(
        {
            "Actions": [
                {"S3Action": {"BucketName": bucket.name, "ObjectKeyPrefix": "in/"}},
                {"SNSAction": {"TopicArn": topic.arn}},
                {"LambdaAction": {"FunctionArn": function.arn, **LAMBDA}},
                {"AddHeaderAction": {"HeaderName": "X-Never", "HeaderValue": "1"}},
            ]
        }
    )
    received = receiving.receive(sender="ann@sender.example", recipients="bob@example.com")
    found = receiving.bounces.wait_for(original=received)
    assert found.dsn.recipients[0].final_recipient == "bob@example.com"
    assert calls == [("ann@sender.example", "bouncer", True)]
    assert function.wait_for(original=received).result == {"disposition": "STOP_RULE"}
    notice = topic.wait_for(original=received)
    assert notice.message["mail"]["source"] == "ann@sender.example"
    stored = bucket.wait_for(original=received)
    assert stored.key == f"in/{received}"
    assert b"Subject: Hello" in stored.content
    done = receiving.received.wait_for(message_id=received, processed=True)
    assert [step.action for step in done.steps] == ["S3", "SNS", "Lambda"]


def test_actions_are_made_for_rules(receiving):
    function = receiving.function("look", lambda event, context: None)
    topic, bucket = receiving.topic("news"), receiving.bucket("mail")
    receiving.rules({"Actions": [bucket.action, topic.action, function.action]})
    received = receiving.receive(recipients="bob@example.com")
    for collection in (bucket, topic, function):
        assert collection.wait_for(original=received)


def test_a_coroutine_function_is_a_handler(receiving):
    async def handler(event, context):
        await asyncio.sleep(0)
        return {"disposition": "CONTINUE"}

    function = receiving.function("slow", handler)
    receiving.rules({"Actions": [{"LambdaAction": {"FunctionArn": function.arn, **LAMBDA}}]})
    received = receiving.receive(recipients="bob@example.com")
    assert function.wait_for(original=received).result == {"disposition": "CONTINUE"}


def test_a_function_that_raises_is_seen(receiving):
    def handler(event, context):
        raise LookupError("no such customer")

    function = receiving.function("broken", handler)
    receiving.rules({"Actions": [{"LambdaAction": {"FunctionArn": function.arn, **LAMBDA}}]})
    received = receiving.receive(recipients="bob@example.com")
    assert isinstance(function.wait_for(original=received).error, LookupError)
    with pytest.raises(NotArrivedError, match=r"the function raised LookupError\('no such"):
        receiving.bounces.wait_for(original=received, timeout=0.3)
    receiving.clock.advance(minutes=1)  # the first retry
    wait_for(lambda: len(function) == 2)


def test_a_rule_with_an_unknown_function_is_refused(receiving):
    arn = "arn:aws:lambda:us-east-1:000000000000:function:nobody"
    receiving.ses.create_receipt_rule_set(RuleSetName="a")
    rule = {"Name": "r", "Actions": [{"LambdaAction": {"FunctionArn": arn}}]}
    with pytest.raises(receiving.ses.exceptions.InvalidLambdaFunctionException):
        receiving.ses.create_receipt_rule(RuleSetName="a", Rule=rule)


def test_a_setup_is_applied_from_a_file_or_a_mapping(server, tmp_path):
    file = tmp_path / "setup.toml"
    file.write_text('identities = ["example.org"]\n')
    assert server.apply(file).changes == ("identity example.org is Success",)
    assert server.apply({"identities": ["example.net"]}).changes
    with pytest.raises(SetupError, match="identitys is none of"):
        server.apply({"identitys": []})


def test_an_inbox_is_an_address_of_its_own(server):
    one, two = server.inbox(), server.inbox()
    assert str(one) != str(two)
    received = one.receive(subject="For one")
    assert one.wait_for(subject="For one").message_id == received
    with pytest.raises(NotArrivedError):
        two.wait_for(timeout=0.02)
    server.ses.send_bounce(
        OriginalMessageId=received,
        BounceSender=f"mailer-daemon@{one.address.partition('@')[2]}",
        BouncedRecipientInfoList=[{"Recipient": one.address, "BounceType": "DoesNotExist"}],
    )
    assert one.wait_for_bounce().original == received


# --- the clock, reset, settings ---------------------------------------------------------------


def test_the_window_of_24_hours_ends_without_waiting(receiving):
    received = receiving.receive(recipients="bob@example.com")
    before = receiving.clock.now()
    receiving.clock.advance(hours=25)
    assert receiving.clock.now() - before >= timedelta(hours=25)
    with pytest.raises(receiving.ses.exceptions.MessageRejected):
        bounce(receiving, received, "bob@example.com")


def test_throttling_ends_when_the_clock_moves():
    with Sendback(send_bounce_rate=1) as server:
        server.verify("example.com")
        received = server.receive(recipients="bob@example.com")
        bounce(server, received, "bob@example.com")
        with pytest.raises(server.ses.exceptions.ClientError, match="Throttling"):
            bounce(server, received, "bob@example.com")
        server.clock.advance(seconds=1)
        bounce(server, received, "bob@example.com")


def test_the_clock_moves_forward_only(server):
    with pytest.raises(ValueError, match="forward"):
        server.clock.advance(hours=-1)


def test_reset_makes_the_server_empty(receiving):
    function = receiving.function("f", lambda event, context: None)
    receiving.rules({"Actions": [{"LambdaAction": {"FunctionArn": function.arn, **LAMBDA}}]})
    received = receiving.receive(recipients="bob@example.com")
    bounce(receiving, received, "bob@example.com")
    receiving.clock.advance(hours=1)
    receiving.reset()
    assert list(receiving.bounces) == list(receiving.received) == list(receiving.sent) == []
    assert receiving.ses.list_identities()["Identities"] == []
    assert receiving.ses.list_receipt_rule_sets()["RuleSets"] == []
    assert abs(receiving.clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    with pytest.raises(MailRefusedError):
        receiving.receive(recipients="bob@example.com")
    receiving.verify("example.com")
    assert receiving.receive(recipients="bob@example.com") != received


def test_reset_ends_work_in_progress(receiving):
    released = threading.Event()

    def slow(event, context):
        released.wait(5)

    function = receiving.function("slow", slow)
    receiving.rules({"Actions": [{"LambdaAction": {"FunctionArn": function.arn, **LAMBDA}}]})
    receiving.receive(recipients="bob@example.com")
    receiving.reset()
    released.set()
    receiving.verify("example.com")
    received = receiving.receive(recipients="bob@example.com")
    assert [mail.message_id for mail in receiving.received] == [received]


def test_settings_have_python_values(tmp_path):
    with Sendback(
        region="eu-west-1",
        retention=timedelta(hours=48),
        receive_without_rules=False,
        data_dir=tmp_path / "kept",
    ) as server:
        server.verify("example.com")
        with pytest.raises(MailRefusedError):  # there are no rules
            server.receive(recipients="bob@example.com")
        assert server.topic("t").arn == "arn:aws:sns:eu-west-1:000000000000:t"
    assert (tmp_path / "kept" / "sendback.db").exists()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"regoin": "x"}, "regoin"),
        ({"region": "EU!"}, "region"),
        ({"workers": 2}, "workers"),
    ],
)
def test_settings_that_are_not_usable(settings, text):
    with pytest.raises(SettingError, match=text):
        Sendback(**settings).start()


# --- other processes and clients --------------------------------------------------------------


def test_a_child_process_finds_the_server(receiving):
    received = receiving.receive(recipients="bob@example.com")
    program = (
        "import boto3, sys\n"
        "boto3.client('ses').send_bounce(OriginalMessageId=sys.argv[1],"
        " BounceSender='md@example.com',"
        " BouncedRecipientInfoList=["
        "{'Recipient': 'bob@example.com', 'BounceType': 'DoesNotExist'}])"
    )
    environment = {**os.environ, **receiving.env}
    subprocess.run([sys.executable, "-c", program, received], env=environment, check=True)
    assert receiving.bounces.wait_for(original=received).sender == "md@example.com"


def test_the_environment_is_for_boto3(receiving, monkeypatch):
    for name, value in receiving.env.items():
        monkeypatch.setenv(name, value)
    client = boto3.session.Session().client("ses")
    assert client.list_identities()["Identities"] == ["example.com"]


def test_two_servers_are_apart(server):
    with Sendback() as other:
        other.verify("other.example")
        assert server.ses.list_identities()["Identities"] == []
        assert other.endpoint_url != server.endpoint_url


def test_async_use():
    async def use():
        async with Sendback() as server:
            await asyncio.to_thread(server.verify, "example.com")
            return await server.receive_async(recipients="bob@example.com")

    assert len(asyncio.run(use())) == 40


def test_a_server_that_is_not_started_says_so():
    with pytest.raises(ServerError, match="not started"):
        _ = Sendback().endpoint_url


def test_a_server_starts_once(server):
    with pytest.raises(ServerError, match="started before"):
        server.start()


def test_use_after_the_end_says_so(tmp_path):
    with Sendback() as server:
        pass
    with pytest.raises(ServerError, match="stopped"):
        server.verify("example.com")


def test_the_example_in_the_docstring():
    assert doctest.testmod(sendback.testing).failed == 0


def test_events_are_json(receiving):
    topic = receiving.topic("t")
    receiving.rules({"Actions": [{"SNSAction": {"TopicArn": topic.arn}}]})
    received = receiving.receive(recipients="bob@example.com")
    assert json.dumps(topic.wait_for(original=received).message)
    assert Path(receiving.app.settings.data_dir).is_dir()


def test_a_local_function_is_loaded_again_after_a_reset(server, tmp_path):
    file = tmp_path / "handler.py"
    results = []
    for disposition in ("STOP_RULE", "STOP_RULE_SET"):
        file.write_text(
            f"def handle(event, context):\n    return {{'disposition': '{disposition}'}}"
        )
        arn = "arn:aws:lambda:us-east-1:000000000000:function:f"
        server.apply({"identities": ["example.com"], "functions": {arn: f"python:{file}:handle"}})
        server.rules({"Actions": [{"LambdaAction": {"FunctionArn": arn, **LAMBDA}}]})
        received = server.receive(recipients="bob@example.com")
        mail = server.received.wait_for(message_id=received, processed=True)
        results.append(mail.steps[0].disposition)
        server.reset()
    assert results == ["STOP_RULE", "STOP_RULE_SET"]


def test_a_bucket_is_read_and_written_by_s3(receiving):
    bucket = receiving.bucket("mail")
    receiving.rules({"Actions": [{"S3Action": {"BucketName": bucket.name}}]})
    received = receiving.receive(recipients="bob@example.com", subject="Stored")
    bucket.wait_for(original=received)
    s3 = receiving.client("s3")
    found = s3.get_object(Bucket="mail", Key=received)["Body"].read()
    assert b"Subject: Stored" in found
    s3.put_object(Bucket="mail", Key="copies/one", Body=b"1", Metadata={"from": "test"})
    assert [(each.key, each.content) for each in bucket][1:] == [("copies/one", b"1")]


def test_verdicts_are_given(receiving):
    topic = receiving.topic("t")
    receiving.rules({"Actions": [{"SNSAction": {"TopicArn": topic.arn}}]})
    received = receiving.receive(
        recipients="bob@example.com",
        verdicts={"spf": "FAIL", "dmarc": "FAIL", "dmarc_policy": "reject"},
    )
    receipt = topic.wait_for(original=received).message["receipt"]
    assert receipt["spfVerdict"] == {"status": "FAIL"}
    assert (receipt["dmarcVerdict"], receipt["dmarcPolicy"]) == ({"status": "FAIL"}, "reject")


def test_faults_are_injected_and_removed(receiving):
    receiving.fail("rcpt", recipient="bob@example.com", reply="451 4.7.1 Try later", first=1)
    with pytest.raises(MailRefusedError) as caught:
        receiving.receive(recipients="bob@example.com")
    assert (caught.value.code, caught.value.enhanced_code) == (451, "4.7.1")
    received = receiving.receive(recipients="bob@example.com")
    name = receiving.fail("api", operation="SendBounce", error="ServiceUnavailable", from_=1)
    with pytest.raises(receiving.ses.exceptions.ClientError, match="ServiceUnavailable"):
        bounce(receiving, received, "bob@example.com")
    receiving.heal(name)
    receiving.fail("delivery", failure="permanent", text="no such mailbox")
    bounce(receiving, received, "bob@example.com")
    failed = receiving.bounces.wait_for(original=received)
    assert failed.state == "failed"
    assert "no such mailbox" in failed.attempts[0].reply
    receiving.heal()
    bounce(receiving, received, "bob@example.com")
    assert {each.state for each in receiving.bounces} <= {"failed", "captured", "queued"}


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"at": "rcpt", "operation": "SendBounce", "reply": "450 no"}, "can never apply at rcpt"),
        ({"at": "api", "operation": "SendNothing", "lost": True}, "no operation of the SES API"),
        ({"at": "rcpt", "first": 0, "reply": "450 no"}, "can never match"),
    ],
)
def test_a_fault_that_can_never_match_is_refused(receiving, fault, text):
    with pytest.raises(FaultError, match=text):
        receiving.fail(**fault)


def test_a_reset_removes_faults(receiving):
    receiving.fail("connect", reply="421 4.3.2 Closed")
    with pytest.raises(MailRefusedError, match="421"):
        receiving.receive(recipients="bob@example.com")
    receiving.reset()
    receiving.verify("example.com")
    receiving.receive(recipients="bob@example.com")


# --- misuse -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("misuse", "error", "text"),
    [
        (lambda s: s.receive(recipients="a@example.com, b@example.com"), TypeError, "as a list"),
        (lambda s: s.receive(recipients=[5]), TypeError, "not one address"),
        (lambda s: s.receive(recipients="a@example.com", client_ip="192.0.2.1"), ValueError, "127"),
        (lambda s: s.verify(["example.com"]), TypeError, "takes texts"),
        (lambda s: s.bucket("../outside"), ValueError, "no name of a bucket"),
        (lambda s: s.bucket(""), ValueError, "no name of a bucket"),
        (lambda s: s.function("f", None), TypeError, "cannot be called"),
        (lambda s: s.function("f f", print), ValueError, "neither an ARN nor a name"),
        (lambda s: s.topic(""), ValueError, "neither an ARN nor a name"),
        (lambda s: s.client("sns"), ValueError, "the server has no sns: it has ses and s3"),
        (lambda s: s.clock.advance(days=40_000), ValueError, "36500 days in all"),
        (lambda s: s.heal("nothing"), FaultError, "nothing"),
    ],
)
def test_misuse_says_what_is_wrong(server, misuse, error, text):
    with pytest.raises(error, match=text):
        misuse(server)
    server.clock.now()


def test_a_name_of_a_fault_is_taken_once(server):
    server.fail("mail", name="a", drop=True)
    with pytest.raises(FaultError, match="a"):
        server.fail("mail", name="a", drop=True)


def test_addresses_are_compared_as_mail_does(receiving):
    receiving.receive(sender="ann@Sender.example", recipients="bob@EXAMPLE.com")
    assert receiving.received.wait_for(sender="ann@sender.EXAMPLE", recipient="bob@example.COM")


def test_addresses_may_have_any_letters(receiving):
    receiving.receive(sender="ann@sender.example", recipients="bøb@example.com")
    assert receiving.received[0].recipients == ("bøb@example.com",)


def test_the_clock_waits_for_work_in_progress(receiving):
    """Each retry counts, none is made twice, however soon the clock is moved again."""
    bucket = receiving.bucket("mail")
    receiving.rules({"Actions": [bucket.action]})
    receiving.fail("action", action="S3", failure="temporary", first=2)
    for _ in range(10):
        received = receiving.receive(recipients="bob@example.com")
        for _ in range(6):
            receiving.clock.advance(minutes=1)
        mail = receiving.received.wait_for(message_id=received, processed=True)
        assert mail.steps[0].outcome == "done"
    assert receiving.received[0].steps[0].attempts == 3
    assert {mail.steps[0].attempts for mail in list(receiving.received)[1:]} == {1}


def test_a_reset_in_the_middle_of_traffic(receiving, caplog):
    stopped = threading.Event()

    def send():
        while not stopped.is_set():
            with contextlib.suppress(MailRefusedError):
                receiving.receive(recipients="bob@example.com")

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    for _ in range(20):
        receiving.reset()
        receiving.verify("example.com")
    stopped.set()
    for sender in senders:
        sender.join()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
