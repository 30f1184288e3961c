"""Receive, bounce and publish every mail of a collection: `python -m bench.collection FOLDER…`.

Each file is a mail, or a mailbox of several ("From " lines). Each mail goes to a real server by
SMTP; a rule stores it, publishes it to a webhook and hands it to a function, another rule bounces
it, and SendBounce bounces it too; both bounces come back by SMTP and are judged as `sendback dsn
check` does. Last, every mail that says that it is a delivery report is parsed. Printed are counts,
and what did not go as it should. The exit code is 1 when the log has a traceback.
"""

import json
import re
import smtplib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from botocore.exceptions import ClientError
from tests.partners.clients import ses
from tests.partners.listener import Listener
from tests.partners.sendback import Sendback
from tests.partners.webhook import Webhook

from bench.common import folder
from sendback.dsn.check import check
from sendback.dsn.parse import NotADsnError, parse

TOPIC = "arn:aws:sns:us-east-1:000000000000:topic"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"
_SETUP = """
active_rule_set = "main"
identities = ["example.com"]
buckets = {{ mail = "directory:bucket" }}
topics = {{ "{topic}" = "{hook}" }}
functions = {{ "{function}" = "python:function.py:handler" }}
[[rule_sets.main.rules]]
Name = "bounced"
Recipients = ["bounced@example.com"]
Actions = [
  {{ BounceAction = {bounce} }},
]
[[rule_sets.main.rules]]
Name = "kept"
Recipients = ["kept@example.com"]
Actions = [
  {{ AddHeaderAction = {{ HeaderName = "X-Kept", HeaderValue = "yes" }} }},
  {{ S3Action = {{ BucketName = "mail", TopicArn = "{topic}" }} }},
  {{ SNSAction = {{ TopicArn = "{topic}" }} }},
  {{ LambdaAction = {{ FunctionArn = "{function}", InvocationType = "RequestResponse" }} }},
]
"""
_FUNCTION = """
import json, pathlib
def handler(event, context):
    with pathlib.Path("called").open("a") as called:
        called.write(event["Records"][0]["ses"]["mail"]["messageId"] + "\\n")
    return {"disposition": "CONTINUE"}
"""
_BOUNCE = (
    '{ SmtpReplyCode = "550", StatusCode = "5.1.1", Message = "No such user",'
    ' Sender = "mailer-daemon@example.com" }'
)
_SAYS_REPORT = re.compile(
    rb"^content-type:\s*message/[^\r\n]*delivery-status", re.IGNORECASE | re.MULTILINE
)
_LINE_END = re.compile(rb"\r\r\n|\r\n|\r|\n")
_QUIET_SECONDS = 5.0


@dataclass
class Counts:
    """What became of the mails; `faults` says what was not as it should be, and how often."""

    received: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    bounced: int = 0


def mails(folders: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield each mail of the folders with the name of its file; lines end in CRLF."""
    for place in folders:
        for path in sorted(found for found in place.rglob("*") if found.is_file()):
            for content in _mails_of(path.read_bytes()):
                yield path.name, _LINE_END.sub(b"\r\n", content)


def _mails_of(content: bytes) -> list[bytes]:
    if not content.startswith(b"From "):
        return [content]
    found = re.split(rb"(?m)^From .*$\r?\n?", content)
    return [mail for mail in found if mail.strip()]


def _send(server: Sendback, collection: list[Path], counts: Counts) -> None:
    client = ses(server.endpoint)
    smtp = smtplib.SMTP("127.0.0.1", server.smtp_port, local_hostname="mx.sender.example")
    for number, (name, content) in enumerate(mails(collection), 1):
        smtp.ehlo_or_helo_if_needed()
        smtp.mail("ann@sender.example")
        for recipient in ("bounced", "kept"):
            smtp.rcpt(f"{recipient}@example.com")
        code, text = smtp.data(content)
        if code != 250:
            counts.faults[f"{name}: {code} {text.decode()}"] += 1
            continue
        message_id = text.decode().split()[1]
        counts.received.append(message_id)
        _bounce(client, message_id, name, counts)
        if number % 100 == 0:
            print(f"  {number} sent", file=sys.stderr, flush=True)
    smtp.quit()


def _bounce(client: object, message_id: str, name: str, counts: Counts) -> None:
    recipient = {"Recipient": "kept@example.com", "BounceType": "DoesNotExist"}
    try:
        client.send_bounce(  # type: ignore[attr-defined]
            OriginalMessageId=message_id,
            BounceSender="mailer-daemon@example.com",
            BouncedRecipientInfoList=[recipient],
        )
    except ClientError as error:
        counts.faults[f"{name}: SendBounce: {error}"] += 1
    else:
        counts.bounced += 1


def _wait(server: Sendback, hook: Webhook, listener: Listener) -> int:
    """Wait until nothing has come for some seconds; return the calls of the function."""
    called = server.folder / "called"
    before, since = (-1, -1, -1), time.monotonic()
    while time.monotonic() - since < _QUIET_SECONDS:
        calls = len(called.read_text().splitlines()) if called.exists() else 0
        now = (calls, hook.count, listener.messages.qsize())
        if now != before:
            before, since = now, time.monotonic()
        time.sleep(0.2)
    return before[0]


def _print_log(server: Sendback) -> None:
    """Warnings and errors, their first lines."""
    levels = ("WARNING", "ERROR", "CRITICAL")
    lines = [line for line in server.log.splitlines() if any(level in line for level in levels)]
    print("\n".join(f"  {line[:200]}" for line in lines[:20]))


def _judge_bounces(listener: Listener, counts: Counts) -> int:
    total = 0
    while not listener.messages.empty():
        content = listener.messages.get().content
        total += 1
        parse(content)
        for finding in check(content):
            counts.faults[f"a bounce: {finding}"] += 1
    return total


def _judge_events(hook: Webhook) -> int:
    total = 0
    while not hook.posts.empty():
        _, body = hook.posts.get()
        event = json.loads(json.loads(body)["Message"])
        total += "commonHeaders" in event["mail"]
    return total


def _judge_reports(collection: list[Path]) -> tuple[int, int]:
    said = parsed = 0
    for name, content in mails(collection):
        if not _SAYS_REPORT.search(content):
            continue
        said += 1
        try:
            parse(content)
        except NotADsnError as error:
            print(f"  not read: {name}: {error}")
        else:
            parsed += 1
    return said, parsed


def main(collection: list[Path]) -> int:
    counts = Counts()
    environment = {"SENDBACK_SEND_BOUNCE_RATE": "0", "SENDBACK_LOG_LEVEL": "warning"}
    environment["SENDBACK_PRIVATE_TARGETS"] = "true"  # the webhook
    with (
        tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=folder()) as place,
        Webhook() as hook,
        Listener(data_size_limit=100_000_000) as listener,
        Sendback(Path(place), ("--outbound", listener.url), environment) as server,
    ):
        Path(place, "function.py").write_text(_FUNCTION)
        setup = Path(place, "setup.toml")
        setup.write_text(
            _SETUP.format(topic=TOPIC, hook=hook.url, function=FUNCTION, bounce=_BOUNCE)
        )
        server.run("rules", "apply", str(setup))
        _send(server, collection, counts)
        calls = _wait(server, hook, listener)
        print(f"received {len(counts.received)}, bounced by SendBounce {counts.bounced}")
        print(f"bounces that arrived {_judge_bounces(listener, counts)}")
        print(f"notifications {_judge_events(hook)}, calls of the function {calls}")
        for state in ("held", "dropped"):
            print(f"{state}: {len(server.json('messages', 'list', '--state', state))}")
        tracebacks = server.log.count("Traceback")
        print(f"tracebacks in the log: {tracebacks}")
        _print_log(server)
    for fault, number in counts.faults.most_common(50):
        print(f"  {number} x {fault}")
    said, parsed = _judge_reports(collection)
    print(f"delivery reports read: {parsed} of {said}")
    return 1 if tracebacks else 0


if __name__ == "__main__":
    raise SystemExit(main([Path(argument) for argument in sys.argv[1:]]))
