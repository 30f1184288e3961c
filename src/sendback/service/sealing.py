"""Secrets at rest: sealed with the installation's secret, so that a copied database is no key.

AES-256-GCM with a random nonce; the access key is the associated data, so that a sealed secret
cannot be moved to another key's row. The installation's secret is a file of the data directory.
"""

import os
from pathlib import Path

_NONCE_OCTETS = 12
_KEY_OCTETS = 32


class Sealing:
    """Seals and opens. The file is made on first use, readable by its owner only."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def seal(self, secret: str, access_key: str) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 8 MB

        nonce = os.urandom(_NONCE_OCTETS)
        return nonce + AESGCM(self._key()).encrypt(nonce, secret.encode(), access_key.encode())

    def open(self, sealed: bytes, access_key: str) -> str:
        """Raises `cryptography.exceptions.InvalidTag` when the file is another one."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 8 MB

        nonce, text = sealed[:_NONCE_OCTETS], sealed[_NONCE_OCTETS:]
        return AESGCM(self._key()).decrypt(nonce, text, access_key.encode()).decode()

    def _key(self) -> bytes:
        if not self._file.exists():
            self._create()
        return bytes.fromhex(self._file.read_text().strip())

    def _create(self) -> None:
        """Written whole under another name first: two processes may start at once."""
        partial = self._file.with_suffix(f".{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(os.urandom(_KEY_OCTETS).hex())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, self._file)
        except FileExistsError:
            pass  # the other process was first, and its secret is the one
        finally:
            partial.unlink()
