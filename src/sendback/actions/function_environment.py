"""The environment with which a local function's AWS clients find this server.

| variable | value |
| --- | --- |
| `AWS_ENDPOINT_URL_SES` | this server |
| `AWS_ENDPOINT_URL_S3` | this server, or where all of the account's buckets are |
| `AWS_ENDPOINT_URL` | the closed endpoint of this server, while outbound mail is captured |
| `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` | the development key, for its account's functions |

Functions with credentials of AWS (`function_environment` names them) are meant to call AWS: they
get neither of the two endpoints in the middle. Credentials of this server are no such credentials.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from sendback.config.settings import Settings
from sendback.service.access.keys import DEVELOPMENT_KEY, DEVELOPMENT_SECRET, Keys
from sendback.service.rules.targets import BUCKET, DIRECTORY
from sendback.store.engine.store import Store
from sendback.store.rules.targets import ListTargets

_ACCESS_KEY = "AWS_ACCESS_KEY_ID"
_CREDENTIALS = (
    _ACCESS_KEY,
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The URL of this server, and of its endpoint that refuses other services."""

    server: str
    closed: str


class FunctionEnvironment:
    """Returns the variables of an account's functions. They follow the account's buckets."""

    def __init__(self, settings: Settings, endpoints: Endpoints, store: Store, keys: Keys) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._store = store
        self._keys = keys

    async def __call__(self, account_id: str) -> Mapping[str, str]:
        """Raise `StoreUnavailableError`."""
        settings = self._settings
        environment = {
            "AWS_ENDPOINT_URL_SES": self._endpoints.server,
            "AWS_REGION": settings.region,
            "AWS_DEFAULT_REGION": settings.region,
        }
        if settings.development_key and account_id == settings.account_id:
            environment[_ACCESS_KEY] = DEVELOPMENT_KEY
            environment["AWS_SECRET_ACCESS_KEY"] = DEVELOPMENT_SECRET
        if await self._calls_aws():
            return environment
        environment["AWS_ENDPOINT_URL_S3"] = await self._s3(account_id)
        if settings.outbound.captures:
            environment["AWS_ENDPOINT_URL"] = self._endpoints.closed
            # The machine's role is not for functions that call nothing of AWS.
            environment["AWS_EC2_METADATA_DISABLED"] = "true"
        return environment

    async def _calls_aws(self) -> bool:
        """Whether functions inherit credentials that are not this server's."""
        names = set(_CREDENTIALS) & set(self._settings.function_environment) & os.environ.keys()
        if names == {_ACCESS_KEY}:
            return await self._keys.find(os.environ[_ACCESS_KEY]) is None
        return bool(names)

    async def _s3(self, account_id: str) -> str:
        """Return the endpoint at which the account's buckets are, or this server.

        This server tells of a bucket that is elsewhere where it is.
        """
        mapping = await self._store.read(ListTargets(account_id))
        targets = {target for (kind, _), target in mapping.items() if kind == BUCKET}
        default = self._settings.endpoint(self._settings.s3_endpoint)
        targets = targets or ({default} if default else set())
        target = targets.pop() if len(targets) == 1 else DIRECTORY
        if target.startswith(DIRECTORY):
            return self._endpoints.server
        if target == "aws":
            return f"https://s3.{self._settings.region}.amazonaws.com"
        return target.removeprefix("endpoint:")
