"""The errors of the API, as JSON with the right status."""

from collections.abc import Mapping
from typing import Any

from sendback.errors import SendbackError


class ApiError(SendbackError):
    """A request that is refused: an HTTP status, a code for programs, and a text for people."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": str(self)}}


def bad_parameter(name: str, reason: str) -> ApiError:
    """Return the error for a parameter or a member that cannot be used."""
    return ApiError(400, "InvalidParameter", f"{name}: {reason}")


def not_found(text: str) -> ApiError:
    """Return the error for something that does not exist."""
    return ApiError(404, "NotFound", text)
