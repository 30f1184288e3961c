"""A request to the API: its parameters and its body, each checked by name.

What is unknown is refused by name, so that a misspelt filter does not select everything.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from sendback.config.readers import duration
from sendback.inspection.errors import ApiError, bad_parameter

MAX_WAIT_SECONDS = 60.0
MAX_LIMIT = 1000
DEFAULT_LIMIT = 50
_MAX_PARAMETERS = 50
_MAX_VALUE = 1000
_LARGE_BODY = 64 * 1024
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose parameters are known; `path` has the variable parts of the path."""

    request: Request
    path: Mapping[str, str]
    parameters: Mapping[str, str]

    def text(self, name: str) -> str | None:
        """Return a parameter, or None if it is not given or empty."""
        return self.parameters.get(name) or None

    def limit(self) -> int:
        """Return the parameter `limit`. Raise `ApiError`."""
        text = self.parameters.get("limit", str(DEFAULT_LIMIT))
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= MAX_LIMIT:
            raise bad_parameter("limit", f"it must be a number from 1 to {MAX_LIMIT}")
        return int(text)

    def wait_seconds(self) -> float:
        """Return the parameter `wait` in seconds, 0 without one. Raise `ApiError`."""
        seconds = self.seconds("wait")
        if seconds > MAX_WAIT_SECONDS:
            raise bad_parameter("wait", f"it must be at most {MAX_WAIT_SECONDS:g}s")
        return seconds

    def seconds(self, name: str) -> float:
        text = self.text(name)
        if text is None:
            return 0.0
        try:
            return duration(text).total_seconds()
        except (ValueError, OverflowError) as error:
            raise bad_parameter(name, str(error)) from None

    async def body(self, members: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
        """Return the JSON object in the body, whose members are among these. Raise `ApiError`."""
        return _checked(await self.json(), members)

    async def json(self) -> dict[str, Any]:
        """Return the JSON object in the body. Raise `ApiError`."""
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            text = "The body must be JSON: Content-Type: application/json."
            raise ApiError(415, "UnsupportedMediaType", text)
        octets = await self.request.body()
        if len(octets) > _LARGE_BODY:
            value = await asyncio.to_thread(_parse, octets)
        else:
            value = _parse(octets)
        if not isinstance(value, dict):
            raise ApiError(400, "InvalidBody", "The body must be a JSON object.")
        return value


def read_parameters(request: Request, allowed: frozenset[str]) -> dict[str, str]:
    """Return the parameters of the query string. Raise `ApiError`."""
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError:
        raise ApiError(400, "InvalidQuery", "The query string cannot be read.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            known = f"known are {', '.join(sorted(allowed))}" if allowed else "there are none"
            raise bad_parameter(_short(name), f"there is no such parameter; {known}")
        if name in found:
            raise bad_parameter(name, "it is given twice")
        if len(value) > _MAX_VALUE or "\0" in value:
            raise bad_parameter(name, f"it must be text of at most {_MAX_VALUE} characters")
        found[name] = value
    return found


def _parse(octets: bytes) -> Any:
    try:
        return json.loads(octets)
    except (ValueError, RecursionError):
        raise ApiError(400, "InvalidBody", "The body is not JSON.") from None


def _checked(
    value: dict[str, Any], members: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
    for name, member in value.items():
        if name not in members:
            known = ", ".join(members) or "none"
            raise bad_parameter(_short(name), f"there is no such member; known are {known}")
        if not isinstance(member, members[name]) or isinstance(member, bool):
            raise bad_parameter(name, "it has the wrong type")
    return value


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"


__all__ = ["Call", "ClientDisconnect", "read_parameters"]
