"""Sign mail with DKIM (RFC 6376; RFC 8463 for Ed25519), relaxed/relaxed. Pure.

Each field in `SIGNED` is signed once more than it occurs, so that nobody can add another one later
(§8.15: oversigning). The body is hashed once for all keys.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sendback.mail.dkim_canonicalization import relaxed_body, relaxed_field
from sendback.mail.headers import header_fields, header_section

# §5.4.1, and the fields that a DSN has in addition.
SIGNED = (
    "From", "Reply-To", "To", "Cc", "Subject", "Date", "Message-ID", "In-Reply-To", "References",
    "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Auto-Submitted", "Sender",
)  # fmt: skip
_LINE = 72


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A domain's key. `algorithm` is the a= tag; `sign` returns the signature of its argument.

    The argument is the octets to sign for `rsa-sha256`, their hash for `ed25519-sha256` (RFC 8463
    §3).
    """

    domain: str
    selector: str
    algorithm: str
    sign: Callable[[bytes], bytes]


def sign(content: bytes, keys: Sequence[SigningKey], at: datetime) -> bytes:
    """Return the DKIM-Signature fields for the message, one for each key, to put before it."""
    header = header_section(content)
    body_hash = _base64(hashlib.sha256(relaxed_body(_body(content, header))).digest())
    fields = _last_first(header)
    names = [name for name in SIGNED for _ in range(len(fields.get(name.lower(), ())) + 1)]
    signed = b"".join(field for name in SIGNED for field in fields.get(name.lower(), ()))
    return b"".join(_signature(key, at, names, body_hash, signed) for key in keys)


def _body(content: bytes, header: bytes) -> bytes:
    return content[len(header) :].removeprefix(b"\r\n")


def _last_first(header: bytes) -> dict[str, list[bytes]]:
    """Return the canonical fields by name, the last of each name first (§5.4.2)."""
    found: dict[str, list[bytes]] = {}
    for name, field in header_fields(header):
        found.setdefault(name.decode("ascii").lower(), []).insert(0, relaxed_field(name, field))
    return found


def _signature(
    key: SigningKey, at: datetime, names: Sequence[str], body_hash: str, signed: bytes
) -> bytes:
    tags = (
        f"v=1; a={key.algorithm}; c=relaxed/relaxed; d={key.domain};",
        f"s={key.selector}; t={int(at.timestamp())};",
        "h=" + _folded_names(names) + ";",
        f"bh={body_hash};",
        "b=",
    )
    field = ("DKIM-Signature: " + "\r\n\t".join(tags)).encode("ascii")
    # §3.7: the signature's own field, without its last CRLF, is the end of the signed octets.
    octets = signed + relaxed_field(b"DKIM-Signature", field)[:-2]
    if key.algorithm == "ed25519-sha256":
        octets = hashlib.sha256(octets).digest()
    return field + _folded(_base64(key.sign(octets))) + b"\r\n"


def _folded_names(names: Sequence[str]) -> str:
    lines, line = [], ""
    for name in names:
        if line and len(line) + len(name) > _LINE:
            lines.append(line)
            line = ""
        line += name + ":"
    return "\r\n\t ".join([*lines, line])[:-1]


def _folded(text: str) -> bytes:
    pieces = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\r\n\t ".join(pieces).encode("ascii")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
