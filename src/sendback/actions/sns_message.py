"""SNS's message for HTTP subscribers, signed. SNS developer guide, "Parsing message formats".

The certificate is the installation's own; subscribers fetch it from the URL in the message, and
must be told to trust that host, as they would otherwise trust only sns.….amazonaws.com.
"""

import base64
import hashlib
import json
import re
import uuid
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from sendback.crypto.certificates import make_certificate

# "Verifying the signatures": these, each with its value, a line each.
_SIGNED = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")


class SnsSigner:
    """Creates and signs messages with the key in `file`, which is created on first use."""

    def __init__(self, file: Path, hostname: str, public_url: str, version: str) -> None:
        """`version` is the SignatureVersion: 1 (SHA-1) or 2 (SHA-256)."""
        self._file = file
        self._hostname = hostname
        self._public_url = public_url
        self._version = version
        self.is_prepared = False

    def prepare(self) -> None:
        """Read or create the key. Blocks for up to a second."""
        self._sign(b"")
        self.is_prepared = bool(self.path)

    def message(self, topic_arn: str, subject: str, message: str, now: datetime) -> dict[str, str]:
        """Return a signed Notification."""
        moment = now.astimezone(UTC)
        value = {
            "Type": "Notification",
            "MessageId": str(uuid.uuid4()),
            "TopicArn": topic_arn,
            "Subject": subject,
            "Message": message,
            "Timestamp": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z",
            "SignatureVersion": self._version,
        }
        value["Signature"] = self._sign(signed_text(value).encode())
        value["SigningCertURL"] = f"{self._public_url}{self.path}"
        value["UnsubscribeURL"] = f"{self._public_url}/?Action=Unsubscribe"
        return value

    def certificate_at(self, path: str) -> bytes | None:
        """Return the certificate if `path` is its path; do not create one."""
        known = self._file.exists() and path == self.path
        return self.certificate if known else None

    @cached_property
    def certificate(self) -> bytes:
        """PEM, without the key."""
        match = re.search(rb"-----BEGIN CERTIFICATE-----.*", self._pem, re.DOTALL)
        if match is None:
            raise ValueError(f"{self._file} has no certificate")
        return match[0]

    @cached_property
    def path(self) -> str:
        """Where the certificate is served; another certificate has another path."""
        fingerprint = hashlib.sha256(self.certificate).hexdigest()[:32]
        return f"/SimpleNotificationService-{fingerprint}.pem"

    @cached_property
    def _pem(self) -> bytes:
        if not self._file.exists():
            make_certificate(self._file, self._hostname, rsa=True)
        return self._file.read_bytes()

    @cached_property
    def _key(self) -> Any:
        """Read once: checking an RSA key takes longer than fifty signatures with it."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

        key = serialization.load_pem_private_key(self._pem, None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError(f"{self._file} has no RSA key, which SNS messages are signed with")
        return key

    def _sign(self, text: bytes) -> str:
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415

        algorithm = hashes.SHA1() if self._version == "1" else hashes.SHA256()  # noqa: S303 - SNS's
        signature = self._key.sign(text, padding.PKCS1v15(), algorithm)
        return base64.b64encode(signature).decode("ascii")


def signed_text(value: dict[str, str]) -> str:
    """Return the text that is signed."""
    return "".join(f"{name}\n{value[name]}\n" for name in _SIGNED if name in value)


def post_body(value: dict[str, str]) -> bytes:
    """Return the body of the POST: indented JSON, as SNS sends it."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()
