"""Encryption of stored keys with the installation's secret.

A copy of the database alone does not disclose the keys.

AES-256-GCM with a random nonce. The owner of the value (an access key, a DKIM selector) is the
associated data, so that a sealed value cannot be moved to another row. The installation's secret is
32 octets in hexadecimal: the setting `secret`, or in a file that is created on first use.
"""

import hashlib
import hmac
import os
from pathlib import Path

from sendback.crypto.private_files import create_private
from sendback.errors import SendbackError

_NONCE_OCTETS = 12
_KEY_OCTETS = 32


class SecretError(SendbackError):
    """The installation's secret is unreadable, or not the one that this database uses."""


class Sealing:
    """Encrypts and decrypts with the installation's secret."""

    def __init__(self, file: Path, given: str = "") -> None:
        """`given` is the secret itself; if it is not empty, the file is not read."""
        self._file = file
        self._given = given
        self._key: bytes | None = None

    def seal(self, secret: bytes, belongs_to: str) -> bytes:
        """Return the encrypted secret. Raise `SecretError`."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 8 MB

        nonce = os.urandom(_NONCE_OCTETS)
        return nonce + AESGCM(self._secret()).encrypt(nonce, secret, belongs_to.encode())

    def open(self, sealed: bytes, belongs_to: str) -> bytes:
        """Return the decrypted secret. Raise `SecretError`."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - 8 MB
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        nonce, text = sealed[:_NONCE_OCTETS], sealed[_NONCE_OCTETS:]
        try:
            return AESGCM(self._secret()).decrypt(nonce, text, belongs_to.encode())
        except (InvalidTag, ValueError):  # ValueError: the value is too short
            raise SecretError(
                f"what is sealed for {belongs_to} was sealed with another secret than "
                f"{self.origin}, or has been changed"
            ) from None

    def derive(self, purpose: str) -> bytes:
        """Return a key of 32 octets for another purpose, which does not disclose the secret."""
        return hmac.new(self._secret(), f"sendback {purpose}".encode(), hashlib.sha256).digest()

    @property
    def fingerprint(self) -> str:
        """Identifies the secret; stored in the database to detect another one."""
        return self.derive("fingerprint").hex()[:32]

    @property
    def is_missing(self) -> bool:
        """Whether there is no secret yet: it would be made on first use."""
        return not self._given and not self._file.exists()

    @property
    def file(self) -> Path:
        """The file of the secret, unless it is given."""
        return self._file

    @property
    def origin(self) -> str:
        """Description of the secret's source, for error messages."""
        return "the one in the setting secret" if self._given else f"the one in {self._file}"

    def _secret(self) -> bytes:
        if self._key is None:
            self._key = self._read()
        return self._key

    def _read(self) -> bytes:
        try:
            if not self._given and not self._file.exists():
                create_private(self._file, os.urandom(_KEY_OCTETS).hex().encode())
            text = self._given or self._file.read_text()
            key = bytes.fromhex(text.strip())
        except (OSError, ValueError) as error:
            raise SecretError(f"the secret, {self.origin}, cannot be read: {error}") from None
        if len(key) != _KEY_OCTETS:
            raise SecretError(f"the secret, {self.origin}, must be 64 hexadecimal digits")
        return key
