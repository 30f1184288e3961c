"""Responses of the Query API, independent of the HTTP server."""

from dataclasses import dataclass

from sendback.aws.response import CONTENT_TYPE

# RFC 9110 §10.2.1, §10.2.3
_FIELDS_BY_STATUS = {405: (b"allow", b"GET, HEAD, POST, PUT, DELETE"), 503: (b"retry-after", b"1")}


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """An HTTP status, an XML body, and the request ID, which is in the body and in a header.

    `is_lost`: an injected fault; close the connection instead of sending the response.
    """

    status: int
    body: bytes
    request_id: str
    is_lost: bool = False

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the header fields: names in lower case, with the body's length."""
        fields = [
            (b"content-type", f"{CONTENT_TYPE}; charset=utf-8".encode("ascii")),
            (b"content-length", str(len(self.body)).encode("ascii")),
            (b"x-amzn-requestid", self.request_id.encode("ascii")),
        ]
        if self.status in _FIELDS_BY_STATUS:
            fields.append(_FIELDS_BY_STATUS[self.status])
        return fields
