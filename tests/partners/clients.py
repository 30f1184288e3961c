"""Real clients: boto3, and smtplib with the reply to the content."""

import smtplib
from typing import Any

import boto3
from botocore.config import Config

MAIL = (
    b"From: Ann <ann@sender.example>\r\n"
    b"To: bob@example.com\r\n"
    b"Subject: Lunch\r\n"
    b"Message-ID: <lunch@sender.example>\r\n"
    b"\r\n"
    b"Are you free on Friday?\r\n"
)


def ses(
    endpoint: str,
    *,
    key: str = "test",
    secret: str = "test",
    token: str | None = None,
    **config: Any,
) -> Any:
    """An unmodified boto3 client that does not repeat what failed."""
    settings = {"retries": {"max_attempts": 0}, **config}
    return boto3.client(
        "ses",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(**settings),
    )


def send_mail(
    port: int,
    *,
    sender: str = "ann@sender.example",
    recipients: tuple[str, ...] = ("bob@example.com",),
    content: bytes = MAIL,
    mail_options: tuple[str, ...] = (),
    rcpt_options: tuple[str, ...] = (),
) -> str:
    """Answers the message's ID from the 250."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="mx.sender.example") as smtp:
        smtp.ehlo()
        code, reply = smtp.mail(sender, mail_options)
        assert code == 250, reply
        for recipient in recipients:
            code, reply = smtp.rcpt(recipient, rcpt_options)
            assert code == 250, reply
        code, reply = smtp.data(content)
    assert code == 250, reply
    return reply.decode().split()[1]
