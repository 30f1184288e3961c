"""Authenticate requests of S3, by the same keys as the SES API, before any other check."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from sendback.aws.errors import SesError
from sendback.aws.sigv4 import SignedRequest, invalid_token, read_credentials, signing_key, verify
from sendback.clock import Clock
from sendback.s3.chunks import ChunkSigner
from sendback.s3.errors import S3Error, of_signature
from sendback.service.access.caller import Caller
from sendback.service.access.keys import Keys

SERVICE = "s3"


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The caller, and what verifies the signatures of the chunks of its body."""

    caller: Caller
    chunks: ChunkSigner = field(repr=False)


class S3Authenticator:
    """Verifies signatures for one region."""

    def __init__(self, keys: Keys, clock: Clock, region: str) -> None:
        self._keys = keys
        self._clock = clock
        self.region = region

    async def authenticate(self, request: SignedRequest) -> Authenticated:
        """Return the caller who signed the request. Raise `S3Error`, `StoreUnavailableError`."""
        presigned = "authorization" not in request.headers
        try:
            return await self._authenticate(request)
        except SesError as error:
            raise of_signature(error, presigned=presigned) from None

    async def _authenticate(self, request: SignedRequest) -> Authenticated:
        credentials = read_credentials(request)
        if credentials.region != self.region:
            raise S3Error(
                "AuthorizationHeaderMalformed",
                "The authorization header is malformed; the region is wrong; "
                f"expecting '{self.region}'",
                {"Region": self.region},
            )
        signer = await self._keys.find(credentials.access_key)
        if signer is None:
            raise invalid_token()
        if not signer.has_token(credentials.session_token):
            raise S3Error("InvalidToken", "The provided token is malformed or otherwise invalid.")
        now = datetime.now(UTC)  # the machine's, as for the SES API
        verify(request, credentials, signer.secret, self.region, now, (SERVICE,))
        if signer.expires_at is not None and signer.expires_at <= self._clock.now():
            raise SesError("ExpiredToken", "The provided token has expired.")
        self._keys.used(credentials.access_key)
        key = signing_key(signer.secret, credentials)
        chunks = ChunkSigner(key, credentials.stamp, credentials.scope, credentials.signature)
        return Authenticated(signer.caller, chunks)
