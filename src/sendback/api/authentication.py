"""Authenticate API requests by their signature, before any other check."""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime

from sendback.aws.errors import SesError, invalid_value
from sendback.aws.sigv4 import SignedRequest, invalid_token, read_credentials, verify
from sendback.clock import Clock
from sendback.service.access.caller import Caller
from sendback.service.access.keys import Keys
from sendback.store.bouncing.calls import CallKey

INVOCATION_ID = "amz-sdk-invocation-id"
# AWS's SDKs send a UUID. What is kept must be text that every database can hold.
_INVOCATION_ID = re.compile(r"[!-~]{1,128}")


class Authenticator:
    """Verifies signatures for one region."""

    def __init__(self, keys: Keys, clock: Clock, region: str) -> None:
        self._keys = keys
        self._clock = clock
        self._region = region

    async def authenticate(self, request: SignedRequest, now: datetime) -> Caller:
        """Return the caller who signed the request. Raise `SesError`, `StoreUnavailableError`.

        `now` is the time of the machine, not of a shifted `Clock`, which clients do not know.
        """
        credentials = read_credentials(request)
        signer = await self._keys.find(credentials.access_key)
        if signer is None or not signer.has_token(credentials.session_token):
            raise invalid_token()
        verify(request, credentials, signer.secret, self._region, now)
        if signer.expires_at is not None and signer.expires_at <= self._clock.now():
            raise SesError("ExpiredToken", "The security token included in the request is expired")
        self._keys.used(credentials.access_key)
        return signer.caller


def call_key(caller: Caller, request: SignedRequest) -> CallKey | None:
    """Return the key that an SDK's retries of this call share; None without an invocation ID.

    Raise `SesError`: InvalidParameterValue for an invocation ID that cannot be stored, because a
    retry of its call would bounce twice.
    """
    invocation = request.headers.get(INVOCATION_ID, "")
    if not invocation:
        return None
    if not _INVOCATION_ID.fullmatch(invocation):
        raise invalid_value(INVOCATION_ID, "must be at most 128 printable ASCII characters")
    content = request.body or _query_text(request.query)
    return CallKey(caller.access_key, invocation, hashlib.sha256(content).hexdigest())


def _query_text(query: Sequence[tuple[str, str]]) -> bytes:
    return repr([pair for pair in query if not pair[0].startswith("X-Amz-")]).encode()
