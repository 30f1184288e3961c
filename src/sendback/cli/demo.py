"""`sendback demo`: one mail, one SendBounce and one bounce, all on this machine."""

import contextlib
import json
import os
import queue
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError
from sendback.cli.output import say

if TYPE_CHECKING:
    from sendback.dsn.parse import ParsedDsn

SENDER = "ann@sender.example"
RECIPIENT = "bob@example.com"
_TIMEOUT_SECONDS = 30.0
_MORE_MAILS = (
    ("no-reply@newsletter.example", "list@example.com", "Your weekly digest"),
    ("billing@shop.example", RECIPIENT, "Invoice 2207 for November"),
    (SENDER, "gone@example.com", "Are you still there?"),
)


def demo(
    console: Annotated[
        bool,
        typer.Option(
            "--console",
            help="Then receive some mails more, and serve the web console until Ctrl-C.",
        ),
    ] = False,
) -> None:
    """Receive a mail by SMTP, call SendBounce with boto3, deliver the bounce by SMTP.

    Everything runs on free ports of this machine, with a temporary data directory.
    """
    from sendback.dsn.parse import parse

    with tempfile.TemporaryDirectory(prefix="sendback-demo-") as folder, _listener() as inbox:
        _say(f"The sender's mail server listens on 127.0.0.1:{inbox.port} (aiosmtpd).")
        with _sendback(Path(folder), inbox.port) as addresses:
            http, smtp = addresses["http"], addresses["smtp"]
            endpoint = f"http://{http['host']}:{http['port']}"
            _say(f"Sendback serves: SMTP {smtp['host']}:{smtp['port']}, SES API {endpoint}.")
            client = _client(endpoint)
            client.verify_domain_identity(Domain="example.com")
            _say("boto3: verify_domain_identity(Domain='example.com')")
            received = _send_mail(smtp["host"], smtp["port"])
            _say(
                f"Sendback received a mail from {SENDER} to {RECIPIENT}.\n  message ID: {received}"
            )
            response = client.send_bounce(
                OriginalMessageId=received,
                BounceSender="mailer-daemon@example.com",
                BouncedRecipientInfoList=[{"Recipient": RECIPIENT, "BounceType": "DoesNotExist"}],
            )
            _say(f"boto3: send_bounce(…)\n  bounce ID:  {response['MessageId']}")
            sender, recipients, content = inbox.next_message()
            to = ", ".join(recipients)
            _say(f"The bounce arrived by SMTP, from <{sender.strip('<>')}> to {to}.")
            _print_dsn(parse(content))
            if console:
                _show_console(endpoint, client, smtp["host"], smtp["port"])
        say("The demo is complete. Next: sendback serve")


def _show_console(endpoint: str, client: Any, host: str, port: int) -> None:
    """Receive mails for the console, and wait for Ctrl-C."""
    rule = {
        "Name": "gone",
        "Enabled": True,
        "Recipients": ["gone@example.com"],
        "Actions": [
            {
                "BounceAction": {
                    "SmtpReplyCode": "550",
                    "StatusCode": "5.1.1",
                    "Message": "Mailbox does not exist",
                    "Sender": "mailer-daemon@example.com",
                }
            }
        ],
    }
    client.create_receipt_rule_set(RuleSetName="demo")
    client.create_receipt_rule(RuleSetName="demo", Rule=rule)
    rest = {"Name": "rest", "Enabled": True, "Actions": []}
    client.create_receipt_rule(RuleSetName="demo", Rule=rest, After="gone")
    client.set_active_receipt_rule_set(RuleSetName="demo")
    for sender, recipient, subject in _MORE_MAILS:
        _send_mail(host, port, sender, recipient, subject)
    _say(f"Open {endpoint}/console/ in a browser: choose a mail, then “Bounce…”. Ctrl-C ends it.")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)


class _Inbox:
    """The messages that the sender's mail server receives."""

    def __init__(self) -> None:
        self.port = 0
        self._messages: queue.Queue[tuple[str, list[str], bytes]] = queue.Queue()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: ARG002, N802 - aiosmtpd's
        self._messages.put((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 2.0.0 Ok"

    def next_message(self) -> tuple[str, list[str], bytes]:
        try:
            return self._messages.get(timeout=_TIMEOUT_SECONDS)
        except queue.Empty:
            seconds = f"{_TIMEOUT_SECONDS:.0f} seconds"
            raise CommandFailedError(f"the bounce did not arrive within {seconds}") from None


@contextlib.contextmanager
def _listener() -> Iterator[_Inbox]:
    from aiosmtpd.controller import Controller

    inbox = _Inbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        inbox.port = free.getsockname()[1]
    controller = Controller(inbox, "127.0.0.1", inbox.port, server_hostname="mx.sender.example")
    controller.start()
    try:
        yield inbox
    finally:
        controller.stop()


@contextlib.contextmanager
def _sendback(folder: Path, relay_port: int) -> Iterator[dict[str, dict[str, Any]]]:
    """Run `sendback serve`; yield the content of its ready file."""
    ready, log = folder / "ready.json", folder / "log"
    command = [
        sys.executable, "-m", "sendback", "serve",
        "--http-listen", "127.0.0.1:0", "--smtp-listen", "127.0.0.1:0",
        "--data-dir", str(folder / "data"), "--ready-file", str(ready),
        "--outbound", f"smtp://127.0.0.1:{relay_port}", "--hostname", "mx.example.com",
    ]  # fmt: skip
    # The demo does not use the caller's settings.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SENDBACK_")}
    environment["SENDBACK_VERIFICATION"] = "at_once"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdout=output, stderr=output, cwd=folder, env=environment
        )
    try:
        _wait_for(ready, process, log)
        yield json.loads(ready.read_text())
    finally:
        process.terminate()
        process.wait(_TIMEOUT_SECONDS)


def _wait_for(ready: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise CommandFailedError(f"sendback serve did not start:\n{log.read_text()}")
        time.sleep(0.02)


def _client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "ses",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - the development key
    )


def _send_mail(
    host: str,
    port: int,
    sender: str = SENDER,
    recipient: str = RECIPIENT,
    subject: str = "Lunch on Friday?",
) -> str:
    """Send a mail; return its message ID, which is in the reply to the content."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = f"Ann <{sender}>", recipient, subject
    mail["Message-ID"] = "<lunch@sender.example>"
    mail.set_content("Dear Bob, are you free?\n")
    with smtplib.SMTP(host, port, local_hostname="mx.sender.example") as smtp:
        smtp.ehlo()
        smtp.mail(sender)
        smtp.rcpt(recipient)
        code, reply = smtp.data(mail.as_bytes(policy=SMTP_POLICY))
    if code != 250:  # noqa: PLR2004 - RFC 5321 §4.2.3
        raise CommandFailedError(f"the mail was refused: {code} {reply.decode()}")
    return reply.decode().split()[1]


def _say(text: str) -> None:
    say(text + "\n")


def _print_dsn(dsn: "ParsedDsn") -> None:
    wanted = ("From", "To", "Subject", "In-Reply-To", "Auto-Submitted")
    for name in wanted:
        say(f"  {name}: {dsn.header_value(name)}")
    say("\nDelivery status of the message:\n")
    for name, value in dsn.message_fields:
        say(f"  {name}: {value}")
    for number, recipient in enumerate(dsn.recipients, 1):
        say(f"\nRecipient {number}:\n")
        for name, value in recipient.fields:
            say(f"  {name}: {value}")
    say("\nHuman-readable text:\n")
    say("".join(f"  {line}\n" for line in dsn.explanation.splitlines()))
