"""Calls of S3, SNS and Lambda by boto3, to AWS or to a compatible endpoint.

boto3 is synchronous and slow to import: it is imported by the first action that needs it, and its
calls run in a thread pool of their own, so that slow calls do not block other work.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sendback.redaction import without_users
from sendback.service.rules.ports import ActionFailedError, UnknownTargetError

_THREADS = 50
AWS = "aws"
ENDPOINT = "endpoint:"

# The target does not exist or access is denied.
_UNKNOWN = {"404", "NoSuchBucket", "NotFound", "NotFoundException", "ResourceNotFoundException"}
_FINAL = {"400", "InvalidParameter", "InvalidParameterValue", "ValidationError"}


def is_aws(target: str) -> bool:
    """Whether the target is reached by an AWS API."""
    return target == AWS or target.startswith(ENDPOINT)


class AwsClients:
    """boto3 clients, one for each service, endpoint and region."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._making = asyncio.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, "aws")

    async def call(
        self,
        service: str,
        target: str,
        method: str,
        arguments: dict[str, Any],
        region: str | None = None,
        read: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Call a method in a thread and return its response, or what `read` returns for it.

        `read` runs in the same thread. Raises `ActionFailedError`.
        """
        client = await self._client(service, target, region or self._region)

        def run() -> Any:
            response = getattr(client, method)(**arguments)
            return read(response) if read else response

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, _with_errors_mapped, run, f"{service}:{method}"
        )

    async def _client(self, service: str, target: str, region: str) -> Any:
        key = (service, target, region)
        async with self._making:  # boto3 sessions are not thread-safe
            if key not in self._clients:
                self._clients[key] = await asyncio.to_thread(_make, *key)
        return self._clients[key]


def _make(service: str, target: str, region: str) -> Any:
    import boto3  # noqa: PLC0415 - 0.3 s and 20 MB
    from botocore.config import Config  # noqa: PLC0415

    session = boto3.Session()
    options: dict[str, Any] = {}
    if target.startswith(ENDPOINT):
        options["endpoint_url"] = target.removeprefix(ENDPOINT)
        if session.get_credentials() is None:  # emulators accept any
            options |= {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    config = Config(
        connect_timeout=5,
        read_timeout=31,  # a function may take 30 s
        retries={"total_max_attempts": 1},  # the rule step is retried instead
        s3={"addressing_style": "path" if options else "auto"},
        max_pool_connections=_THREADS,
    )
    return session.client(service, region_name=region, config=config, **options)


def _with_errors_mapped(run: Callable[[], Any], what: str) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        return run()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        text = without_users(f"{what}: {error}")
        if code in _UNKNOWN:
            raise UnknownTargetError(text) from error
        raise ActionFailedError(text, final=code in _FINAL) from error
    except BotoCoreError as error:
        raise ActionFailedError(without_users(f"{what}: {error}")) from error


def region_of(arn: str) -> str:
    """The region that an ARN names."""
    return arn.split(":")[3]
