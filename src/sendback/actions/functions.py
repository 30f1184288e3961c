"""Function actions: Lambda by its API, an HTTP URL, or a local Python or Node handler."""

import asyncio
import json
from typing import Any

from sendback.actions.aws import AwsClients, is_aws, region_of
from sendback.actions.local_functions import LocalFunctions, is_local
from sendback.actions.topics import is_url
from sendback.net.connector import Connector, ConnectorError
from sendback.redaction import shown_url, shown_wrong
from sendback.service.rules.ports import ActionFailedError, UnknownTargetError

# SES developer guide, "Lambda action": the timeout of RequestResponse.
SECONDS = 30.0
_MAX_RESPONSE = 6 * 2**20


class FunctionCallers:
    """Implements `ports.Functions`."""

    def __init__(self, clients: AwsClients, connector: Connector, local: LocalFunctions) -> None:
        self._clients = clients
        self._connector = connector
        self._local = local

    async def check(self, target: str, function_arn: str) -> None:
        if is_aws(target):
            arguments = {"FunctionName": function_arn}
            region = region_of(function_arn)
            await self._clients.call("lambda", target, "get_function", arguments, region)
        elif is_local(target):
            await asyncio.to_thread(self._local.check, target)
        elif not is_url(target):
            raise UnknownTargetError(f"{shown_wrong(target)} is no function")

    async def invoke(self, target: str, function_arn: str, event: str, *, wait: bool) -> object:
        if is_aws(target):
            payload = await self._invoke_lambda(target, function_arn, event, wait=wait)
        elif is_url(target):
            payload = await self._post(target, event)
        elif is_local(target):
            payload = await self._local.invoke(target, function_arn, event, SECONDS)
        else:
            raise UnknownTargetError(f"{shown_wrong(target)} is no function", final=True)
        return _read(payload) if wait else None

    async def _invoke_lambda(
        self, target: str, function_arn: str, event: str, *, wait: bool
    ) -> bytes:
        arguments = {
            "FunctionName": function_arn,
            "InvocationType": "RequestResponse" if wait else "Event",
            "Payload": event.encode(),
        }

        def read(answer: Any) -> tuple[str | None, bytes]:
            return answer.get("FunctionError"), answer["Payload"].read(_MAX_RESPONSE + 1)

        region = region_of(function_arn)
        error, payload = await self._clients.call(
            "lambda", target, "invoke", arguments, region, read
        )
        if error:
            text = payload[:300].decode("utf-8", "replace")
            raise ActionFailedError(f"the function failed ({error}): {text}")
        return bytes(payload)

    async def _post(self, url: str, event: str) -> bytes:
        headers = {"Content-Type": "application/json"}
        try:
            answer = await self._connector.post(url, headers, event.encode(), SECONDS)
        except ConnectorError as error:
            raise ActionFailedError(str(error), final=error.final) from error
        if not 200 <= answer.status < 300:  # noqa: PLR2004 - RFC 9110 §15
            raise ActionFailedError(f"{shown_url(url)} answered {answer.status}")
        return answer.body


def _read(payload: bytes) -> object:
    """Return the payload as JSON; an empty payload is null."""
    if not payload.strip():
        return None
    if len(payload) > _MAX_RESPONSE:
        raise ActionFailedError("the function answered more than 6 MiB")
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        raise ActionFailedError("the function answered what is no JSON") from None
