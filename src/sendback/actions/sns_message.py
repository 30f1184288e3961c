"""SNS's message for HTTP subscribers, signed. SNS developer guide, "Parsing message formats".

The certificate is the installation's own; subscribers fetch it from the URL in the message, and
must be told to trust that host, as they would otherwise trust only sns.….amazonaws.com.
"""

import asyncio
import base64
import hashlib
import json
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sendback.actions.signing_key import SigningKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

# "Verifying the signatures": these, each with its value, a line each.
_SIGNED = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")


class SnsSigner:
    """Creates and signs messages with the installation's key, which is made on first use."""

    def __init__(self, key: SigningKey, public_url: str, version: str) -> None:
        """`version` is the SignatureVersion: 1 (SHA-1) or 2 (SHA-256)."""
        self._source = key
        self._public_url = public_url
        self._version = version
        self._preparing = asyncio.Lock()
        self._key: rsa.RSAPrivateKey
        self._certificate = b""
        # Where the certificate is served; another certificate has another path.
        self._path = ""

    async def prepare(self) -> None:
        """Read the key, or make it, before the first message.

        Raise `SecretError`, `StoreUnavailableError`, `OSError`.
        """
        if self._path:
            return
        async with self._preparing:
            if not self._path:
                await self._use(await self._source.find_or_make())

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
        value["SigningCertURL"] = f"{self._public_url}{self._path}"
        value["UnsubscribeURL"] = f"{self._public_url}/?Action=Unsubscribe"
        return value

    async def certificate_at(self, path: str) -> bytes | None:
        """Return the certificate (PEM) if `path` is its path; do not make one.

        Another node may have made it. Raise `SecretError`, `StoreUnavailableError`.
        """
        if not self._path:
            pem = await self._source.find()
            if pem is None:
                return None
            await self._use(pem)
        return self._certificate if path == self._path else None

    async def _use(self, pem: bytes) -> None:
        match = re.search(rb"-----BEGIN CERTIFICATE-----.*", pem, re.DOTALL)
        if match is None:
            raise ValueError("the key that signs SNS messages has no certificate")
        # Checking an RSA key takes longer than fifty signatures with it.
        self._key = await asyncio.to_thread(_read_key, pem)
        self._certificate = match[0]
        fingerprint = hashlib.sha256(self._certificate).hexdigest()[:32]
        self._path = f"/SimpleNotificationService-{fingerprint}.pem"

    def _sign(self, text: bytes) -> str:
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415

        algorithm = hashes.SHA1() if self._version == "1" else hashes.SHA256()  # noqa: S303 - SNS's
        signature = self._key.sign(text, padding.PKCS1v15(), algorithm)
        return base64.b64encode(signature).decode("ascii")


def _read_key(pem: bytes) -> "rsa.RSAPrivateKey":
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("SNS messages are signed with RSA keys, which this one is not")
    return key


def signed_text(value: dict[str, str]) -> str:
    """Return the text that is signed."""
    return "".join(f"{name}\n{value[name]}\n" for name in _SIGNED if name in value)


def post_body(value: dict[str, str]) -> bytes:
    """Return the body of the POST: indented JSON, as SNS sends it."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()
