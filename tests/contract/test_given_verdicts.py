"""Verdicts that a client gives with its message (`test_verdicts`)."""

import json
import smtplib

import pytest

from sendback.config.loading import load
from sendback.config.settings import SettingError

ARN = "arn:aws:lambda:us-east-1:000000000000:function:record"
FUNCTION = """
import json

def handler(event, context):
    with open("events", "a") as file:
        file.write(json.dumps(event) + "\\n")
"""
SETUP = f"""
identities = ["example.com"]
active_rule_set = "main"

[buckets]
mail = "directory:mail"

[functions]
"{ARN}" = "python:record.py:handler"

[[rule_sets.main.rules]]
Name = "all"
ScanEnabled = SCANNED
Actions = [
  {{ S3Action = {{ BucketName = "mail" }} }},
  {{ LambdaAction = {{ FunctionArn = "{ARN}", InvocationType = "RequestResponse" }} }},
]
"""
MAIL = b"From: Ann <ann@author.example>\r\nTo: bob@example.com\r\nSubject: Hi\r\n\r\nHello\r\n"


@pytest.fixture
def testing(running):
    """A server that takes verdicts, without DNS."""

    def start(*, scanned=True, **flags):
        server = running(**{"test_verdicts": "true", "dns": "off", **flags})
        (server.settings.data_dir / "record.py").write_text(FUNCTION)
        server.set_up(SETUP.replace("SCANNED", str(scanned).lower()))
        return server

    return start


def receive(server, verdicts):
    options = (f"XSENDBACK-VERDICTS={verdicts}",) if verdicts else ()
    message = server.send_mail(content=MAIL, mail_options=options)
    steps = server.steps(message)
    assert [step.outcome for step in steps] == ["done", "done"], steps
    folder = server.settings.data_dir
    event = json.loads((folder / "events").read_text().splitlines()[-1])
    receipt = event["Records"][0]["ses"]["receipt"]
    return receipt, (folder / "mail" / message).read_bytes()


def statuses(receipt):
    return [
        receipt[f"{name}Verdict"]["status"] for name in ("spf", "dkim", "dmarc", "spam", "virus")
    ]


def test_events_and_headers_have_the_given_verdicts(testing):
    given = "spf:FAIL,dkim:PASS,dmarc:FAIL,spam:PASS,virus:PROCESSING_FAILED,dmarc-policy:reject"
    receipt, stored = receive(testing(), given)
    assert statuses(receipt) == ["FAIL", "PASS", "FAIL", "PASS", "PROCESSING_FAILED"]
    assert receipt["dmarcPolicy"] == "reject"
    assert b"X-SES-Spam-Verdict: PASS\r\nX-SES-Virus-Verdict: PROCESSING_FAILED\r\n" in stored
    assert b"Received-SPF: fail (spfCheck: domain of sender.example does not" in stored
    assert b" dkim=pass header.i=@author.example;\r\n" in stored
    assert b" dmarc=fail header.from=author.example;\r\n" in stored


def test_what_is_not_given_is_not_checked(testing):
    server = testing()
    receipt, _ = receive(server, "dmarc:FAIL")
    assert statuses(receipt) == ["GRAY", "GRAY", "FAIL", "DISABLED", "DISABLED"]
    assert receipt["dmarcPolicy"] == "none"
    receipt, _ = receive(server, "dkim:GRAY,spf:PROCESSING_FAILED")
    assert statuses(receipt)[:3] == ["PROCESSING_FAILED", "GRAY", "GRAY"]
    assert "dmarcPolicy" not in receipt


def test_a_message_without_verdicts_is_checked_as_ever(testing):
    server = testing()
    receive(server, "spf:PASS")
    receipt, _ = receive(server, None)
    assert statuses(receipt) == ["DISABLED"] * 5


def test_rules_that_do_not_scan_report_no_scan(testing):
    receipt, stored = receive(testing(scanned=False), "spam:FAIL,virus:FAIL,spf:PASS")
    assert statuses(receipt) == ["PASS", "GRAY", "GRAY", "DISABLED", "DISABLED"]
    assert b"X-SES-Spam-Verdict" not in stored


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("spf:MAYBE", b"spf must be one of PASS, FAIL, GRAY, PROCESSING_FAILED"),
        ("spf:DISABLED", b"spf must be one of PASS, FAIL, GRAY, PROCESSING_FAILED"),
        ("spf", b"verdicts are of the form spf:FAIL,dkim:PASS"),
        ("arc:PASS", b"'arc' is no verdict, only spf, dkim, dmarc, spam, virus, dmarc-policy"),
        ("spf:PASS,spf:FAIL", b"a verdict is given twice"),
        ("dmarc:FAIL,dmarc-policy:drop", b"dmarc-policy must be one of none, quarantine, reject"),
        ("dmarc-policy:reject", b"dmarc-policy is reported with dmarc:FAIL only"),
        ("spf:" + "x" * 197, b"the verdicts have more than 200 characters"),
    ],
)
def test_invalid_verdicts_are_refused_with_what_is_allowed(testing, value, allowed):
    with smtplib.SMTP("127.0.0.1", testing().smtp_port) as smtp:
        smtp.ehlo()
        code, reply = smtp.mail("ann@sender.example", [f"XSENDBACK-VERDICTS={value}"])
        assert (code, reply) == (501, b"5.5.4 XSENDBACK-VERDICTS: " + allowed)
        assert smtp.mail("ann@sender.example")[0] == 250


@pytest.mark.parametrize("setting", ["true", "false"])
def test_the_extension_is_offered_with_the_setting_only(testing, setting):
    with smtplib.SMTP("127.0.0.1", testing(test_verdicts=setting).smtp_port) as smtp:
        smtp.ehlo()
        assert smtp.has_extn("xsendback-verdicts") is (setting == "true")
        code, reply = smtp.mail("ann@sender.example", ["XSENDBACK-VERDICTS=spf:PASS"])
    known = (250, b"2.1.0 Sender ok")
    unknown = (555, b"5.5.4 Parameter XSENDBACK-VERDICTS not recognized")
    assert (code, reply) == (known if setting == "true" else unknown)


def test_the_setting_is_refused_with_delivery_by_mx():
    with pytest.raises(SettingError, match="with delivery by MX only false"):
        load({"test_verdicts": "true", "outbound": "mx", "hostname": "mx.example.com"}, environ={})
