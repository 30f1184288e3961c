"""DKIM keys of domains (RFC 6376, RFC 8463): creation and DNS records.

Theory of operation. A domain has an active key that signs and two standby keys, all published. With
the setting `dkim_ed25519` it has an active and a standby key of each algorithm. Rotation makes a
standby key active, so nothing has to be published first. The record of the old key stays until mail
that it signed has been verified (`OVERLAP`), and a new standby key is created, to be published
later. SES's API calls the selectors "DKIM tokens", and always returns three of them; so does ours,
which is why there are two standby keys.
"""

import base64
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sendback.crypto.sealing import Sealing
from sendback.store.identities.dkim_keys import DkimKey, DkimKeyState

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

RSA, ED25519 = "rsa", "ed25519"  # RFC 6376 §3.6.1, RFC 8463 §3: the k= tag
OVERLAP = timedelta(days=7)
_RSA_BITS = 2048
# SES API: VerifyDomainDkim. Configurations written for SES publish exactly three.
TOKENS = 3


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A record to be published."""

    name: str
    kind: str
    value: str
    purpose: str


def record_of(key: DkimKey) -> DnsRecord:
    """RFC 6376 §3.6.1. A record of over 255 octets is written in several strings."""
    value = f"v=DKIM1; k={key.algorithm}; p={key.public_key}"
    return DnsRecord(key.record_name, "TXT", value, f"DKIM, {key.state.value} {key.algorithm} key")


def is_published(texts: Sequence[bytes], key: DkimKey) -> bool:
    """Return whether one of the TXT records is the key's (RFC 6376 §3.6.1)."""
    return any(_tags(text).get(b"p") == key.public_key.encode() for text in texts)


def has_same_key(text: bytes, wanted: bytes) -> bool:
    """Return whether two TXT records have the same public key (RFC 6376 §3.6.1)."""
    return _tags(text).get(b"p") == _tags(wanted).get(b"p")


def tokens(keys: Sequence[DkimKey]) -> list[str]:
    """Return the selectors of the active and standby keys, at most three: active and RSA first."""
    used = [key for key in keys if key.state is not DkimKeyState.RETIRED]
    used.sort(key=lambda key: (key.state is not DkimKeyState.ACTIVE, key.algorithm != RSA))
    return [key.selector for key in used[:TOKENS]]


class DkimKeyMaker:
    """Creates key pairs with sealed private keys."""

    def __init__(self, sealing: Sealing, *, ed25519: bool) -> None:
        self._sealing = sealing
        self.algorithms = (RSA, ED25519) if ed25519 else (RSA,)
        self._standby = 1 if ed25519 else 2  # of each algorithm

    def missing(
        self,
        account_id: str,
        domain: str,
        keys: Sequence[DkimKey],
        now: datetime,
        *,
        rotates: bool = False,
    ) -> list[DkimKey]:
        """Create the keys that the domain lacks besides `keys`; takes up to a second of CPU.

        With `rotates`, those that it lacks once a standby key of each algorithm is active. A domain
        that has keys gets standby keys only: an active key would sign before its record is
        published.
        """
        new = []
        for algorithm in self.algorithms:
            if not keys:
                new.append(self.make(account_id, domain, algorithm, DkimKeyState.ACTIVE, now))
            left = max(0, _standby_count(keys, algorithm) - rotates)
            new += [
                self.make(account_id, domain, algorithm, DkimKeyState.STANDBY, now)
                for _ in range(self._standby - left)
            ]
        return new

    def make(
        self, account_id: str, domain: str, algorithm: str, state: DkimKeyState, now: datetime
    ) -> DkimKey:
        selector = secrets.token_hex(16)
        private, public = _pair(algorithm)
        return DkimKey(
            account_id=account_id,
            domain=domain,
            selector=selector,
            algorithm=algorithm,
            state=state,
            sealed_key=self._sealing.seal(private, belongs_to(account_id, domain, selector)),
            public_key=base64.b64encode(public).decode("ascii"),
            created_at=now,
        )


def _standby_count(keys: Sequence[DkimKey], algorithm: str) -> int:
    return sum(key.algorithm == algorithm and key.state is DkimKeyState.STANDBY for key in keys)


def belongs_to(account_id: str, domain: str, selector: str) -> str:
    """Return the name that a private key is sealed with."""
    return f"dkim {account_id} {domain} {selector}"


def _tags(text: bytes) -> dict[bytes, bytes]:
    """RFC 6376 §3.2: `name=value; …`."""
    pairs = (tag.partition(b"=") for tag in text.split(b";"))
    return {name.strip(): b"".join(value.split()) for name, _, value in pairs}


def _pair(algorithm: str) -> tuple[bytes, bytes]:
    """Return the private key as PKCS 8, and the public key as in the p= tag, both DER."""
    return _PAIRS[algorithm]()


def _rsa_pair() -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - 8 MB
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _pkcs8(key), public


def _ed25519_pair() -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - 8 MB
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    return _pkcs8(key), public


def _pkcs8(key: "RSAPrivateKey | Ed25519PrivateKey") -> bytes:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - 8 MB

    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


_PAIRS: dict[str, Callable[[], tuple[bytes, bytes]]] = {RSA: _rsa_pair, ED25519: _ed25519_pair}
