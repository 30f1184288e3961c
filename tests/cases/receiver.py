"""A server with rules and DNS, and what its topic was told about a mail."""

import json
import smtplib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.partners.server import Server
from tests.partners.webhook import Webhook

TOPIC = "arn:aws:sns:us-east-1:000000000000:topic"
CASES = Path(__file__).parent


def read_case(name: str) -> bytes:
    """A file of a case: `first-line-space/mail.eml`."""
    return (CASES / name).read_bytes()


class Receiver:
    """Stores what it receives in a directory, then publishes it."""

    def __init__(self, running: Callable[..., Server], hook: Webhook, **flags: Any) -> None:
        self.server = running(send_bounce_rate="0", **flags)
        self.hook = hook
        self.server.set_up(
            f"""
            identities = ["example.com"]
            active_rule_set = "main"
            buckets = {{ mail = "directory:bucket" }}
            topics = {{ "{TOPIC}" = "{hook.url}" }}
            [[rule_sets.main.rules]]
            Name = "all"
            Actions = [
              {{ S3Action = {{ BucketName = "mail" }} }},
              {{ SNSAction = {{ TopicArn = "{TOPIC}" }} }},
            ]
            """
        )

    def send(self, content: bytes, sender: str = "ann@sender.example") -> str:
        """Send octets as they are; return the reply to the content."""
        with smtplib.SMTP("127.0.0.1", self.server.smtp_port, local_hostname="mx.x") as smtp:
            smtp.ehlo()
            smtp.mail(sender)
            assert smtp.rcpt("bob@example.com")[0] == 250
            code, text = smtp.data(content)
        return f"{code} {text.decode()}"

    def receive(self, content: bytes, sender: str = "ann@sender.example") -> dict[str, Any]:
        """Send a mail; return its notification."""
        reply = self.send(content, sender)
        assert reply.startswith("250"), reply
        _, body = self.hook.next()
        notification: dict[str, Any] = json.loads(json.loads(body)["Message"])
        assert notification["mail"]["messageId"] == reply.split()[2]
        return notification

    def common(self, content: bytes) -> dict[str, Any]:
        """The commonHeaders of a mail."""
        found: dict[str, Any] = self.receive(content)["mail"]["commonHeaders"]
        return found

    def verdicts(self, content: bytes, sender: str = "x@evil.example") -> tuple[str, str, str]:
        """SPF, DKIM and DMARC."""
        receipt = self.receive(content, sender)["receipt"]
        spf, dkim, dmarc = (receipt[f"{n}Verdict"]["status"] for n in ("spf", "dkim", "dmarc"))
        return spf, dkim, dmarc

    def stored(self, message_id: str) -> bytes:
        """What the S3 action stored."""
        return (self.server.settings.data_dir / "bucket" / message_id).read_bytes()
