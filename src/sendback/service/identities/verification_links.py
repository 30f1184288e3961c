"""Links that verify an address: signed with the installation's secret, and with an expiry.

`/verify?t=PAYLOAD.SIGNATURE`, both base64url. The payload has the identity, the expiry and the
identity's token, which changes with the first use of the link.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import astuple, dataclass
from datetime import timedelta

from sendback.clock import Clock, to_milliseconds
from sendback.crypto.sealing import Sealing
from sendback.errors import SendbackError

PATH = "/verify"
_MAX_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Link:
    """The content of a link: `expires_at` in Unix milliseconds, `template` if it is custom."""

    account_id: str
    address: str
    token: str
    expires_at: int
    template: str


class ForgedLinkError(SendbackError):
    """The link was not created by this installation."""


class Links:
    """Creates and reads links."""

    def __init__(self, sealing: Sealing, clock: Clock, url: str, lasts: timedelta) -> None:
        """`url` is the public URL of this server."""
        self._sealing = sealing
        self._clock = clock
        self._url = url
        self.lasts = lasts

    def make(self, account_id: str, address: str, token: str, template: str = "") -> str:
        """Return the URL of a link."""
        expires_at = to_milliseconds(self._clock.now() + self.lasts)
        link = Link(account_id, address, token, expires_at, template)
        payload = _encode(json.dumps(astuple(link), separators=(",", ":")).encode())
        return f"{self._url}{PATH}?t={payload}.{_encode(self._sign(payload))}"

    def read(self, text: str) -> Link:
        """Raises `ForgedLinkError`."""
        payload, _, signature = text.partition(".")
        try:
            if len(text) > _MAX_LENGTH:
                raise ForgedLinkError
            if not hmac.compare_digest(_decode(signature), self._sign(payload)):
                raise ForgedLinkError
            return Link(*json.loads(_decode(payload)))
        except (ValueError, TypeError):
            raise ForgedLinkError from None

    def has_expired(self, link: Link) -> bool:
        return link.expires_at <= to_milliseconds(self._clock.now())

    def _sign(self, payload: str) -> bytes:
        key = self._sealing.derive("verification links")
        return hmac.new(key, payload.encode("utf-8", "replace"), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _decode(text: str) -> bytes:
    padded = text + "=" * (-len(text) % 4)
    return base64.b64decode(padded.encode("ascii"), b"-_", validate=True)
