"""Secrets at rest: sealed with the installation's secret, so that a copied database is no key.

AES-256-GCM with a random nonce. What a sealed text belongs to (an access key, a DKIM selector) is
the associated data, so that it cannot be moved to another row. The installation's secret is 32
octets in hexadecimal: given (`SENDBACK_SECRET`), or in a file that is made on first use.
"""

import hashlib
import hmac
import os
from pathlib import Path

from sendback.crypto.private_files import create_private

_NONCE_OCTETS = 12
_KEY_OCTETS = 32


class SecretError(Exception):
    """The installation's secret cannot be read, or is not the one of this database."""


class Sealing:
    """Seals and opens."""

    def __init__(self, file: Path, given: str = "") -> None:
        """`given` is the secret itself, which wins over the file."""
        self._file = file
        self._given = given
        self._key: bytes | None = None

    def seal(self, secret: bytes, belongs_to: str) -> bytes:
        """Raises `SecretError`."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 8 MB

        nonce = os.urandom(_NONCE_OCTETS)
        return nonce + AESGCM(self._secret()).encrypt(nonce, secret, belongs_to.encode())

    def open(self, sealed: bytes, belongs_to: str) -> bytes:
        """Raises `SecretError`."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - 8 MB
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        nonce, text = sealed[:_NONCE_OCTETS], sealed[_NONCE_OCTETS:]
        try:
            return AESGCM(self._secret()).decrypt(nonce, text, belongs_to.encode())
        except InvalidTag:
            raise SecretError(
                f"what is sealed for {belongs_to} was sealed with another secret than {self.origin}"
            ) from None

    def derive(self, purpose: str) -> bytes:
        """A key of 32 octets for something else; tells nothing about the secret."""
        return hmac.new(self._secret(), f"sendback {purpose}".encode(), hashlib.sha256).digest()

    @property
    def fingerprint(self) -> str:
        """What the database remembers, to know the secret again."""
        return self.derive("fingerprint").hex()[:32]

    @property
    def origin(self) -> str:
        """Where the secret comes from, in words."""
        return "the one given" if self._given else f"the one in {self._file}"

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
