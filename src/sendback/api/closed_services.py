"""The closed endpoint: what functions reach in place of AWS's other services. Pure but for ASGI.

While outbound mail is captured, `AWS_ENDPOINT_URL` of a local function is this path, so that a call
of a service without an endpoint of its own does not leave the machine. Each call gets an error in
the form of its protocol; the SDKs repeat none of them. Nothing is verified and nothing looked up.
"""

import json
import re
from collections.abc import Callable, Mapping

from starlette.types import Receive, Scope, Send

from sendback.aws.response import escape
from sendback.aws.sigv4 import claimed_service, header_fields

PATH = "/_closed"

_CODE = "AccessDenied"
_STATUS = 403
_TARGET = re.compile(r"([A-Za-z0-9]{1,60})[._]")
_USER_AGENT = re.compile(r"\bapi/([a-z0-9_-]{1,40})[#/]")
_REST_XML = frozenset({"s3", "s3express", "s3-object-lambda", "cloudfront", "route53"})
# The signing names of services, where their name in AWS_ENDPOINT_URL_… is another.
_VARIABLES = {
    "logs": "CLOUDWATCH_LOGS",
    "monitoring": "CLOUDWATCH",
    "states": "SFN",
    "events": "EVENTBRIDGE",
    "secretsmanager": "SECRETS_MANAGER",
}


def is_closed(raw_path: bytes) -> bool:
    """Whether the path is that of the closed endpoint, or below it."""
    path = PATH.encode("ascii")
    return raw_path == path or raw_path.startswith(path + b"/")


async def refuse_service(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the refusal, after the body."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message.get("more_body", False):
            break
    headers = header_fields(scope["headers"])
    name = _service(headers, scope["query_string"], scope["raw_path"])
    content_type, body = _encoding(headers, name)(_text(name))
    fields = [
        (b"content-type", content_type.encode("ascii")),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"x-amzn-errortype", f"{_CODE}Exception".encode("ascii")),
    ]
    if "smithy-protocol" in headers:
        fields.append((b"smithy-protocol", b"rpc-v2-cbor"))
    await send({"type": "http.response.start", "status": _STATUS, "headers": fields})
    await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})


def _service(headers: Mapping[str, str], query: bytes, raw_path: bytes) -> str:
    """Return the name of the called service, as far as the request has one."""
    if raw_path.startswith(f"{PATH}/v2/email".encode("ascii")):
        return "sesv2"
    authorization = headers.get("authorization", "").encode("utf-8", "surrogateescape")
    claimed = claimed_service(authorization, query)
    if claimed:
        return claimed
    target = _TARGET.match(headers.get("x-amz-target", ""))
    if target:
        return target[1].lower()
    agents = f"{headers.get('x-amz-user-agent', '')} {headers.get('user-agent', '')}"
    named = _USER_AGENT.search(agents)
    return named[1].lower() if named else ""


def _text(name: str) -> str:
    why = "Sendback captures mail, and nothing leaves the machine"
    if name == "sesv2":
        return (
            "SES API v2 (sesv2) is not part of this server, and the call was refused: "
            f"{why}. Use the API of SES v1 (client `ses`), which has SendBounce."
        )
    if not name:
        return f"The call of an AWS service was refused: {why}."
    variable = _VARIABLES.get(name, name.upper().replace("-", "_"))
    return (
        f"The call of the AWS service '{name}' was refused: {why}. To permit it, set "
        f"AWS_ENDPOINT_URL_{variable} for the server, and name it in function_environment."
    )


def _encoding(headers: Mapping[str, str], name: str) -> Callable[[str], tuple[str, bytes]]:
    """Return the encoder of the protocol that the request speaks."""
    content_type = headers.get("content-type", "").lower()
    if "cbor" in headers.get("smithy-protocol", "") or "cbor" in content_type:
        return _cbor
    if "x-amz-target" in headers or "application/x-amz-json" in content_type:
        return _json
    if "x-www-form-urlencoded" in content_type:
        return _ec2_xml if name == "ec2" else _query_xml
    return _query_xml if name in _REST_XML else _json


def _json(text: str) -> tuple[str, bytes]:
    value = {"__type": f"{_CODE}Exception", "message": text, "Message": text}
    return "application/json", json.dumps(value).encode("ascii")


def _query_xml(text: str) -> tuple[str, bytes]:
    """Return the error of the Query protocol, which REST XML has too."""
    return "text/xml", (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{_CODE}</Code>"
        f"<Message>{escape(text)}</Message></Error><RequestId>closed</RequestId></ErrorResponse>"
    ).encode()


def _ec2_xml(text: str) -> tuple[str, bytes]:
    return "text/xml", (
        f"<Response><Errors><Error><Code>{_CODE}</Code><Message>{escape(text)}</Message></Error>"
        "</Errors><RequestID>closed</RequestID></Response>"
    ).encode()


def _cbor(text: str) -> tuple[str, bytes]:
    """Return a map of two texts in CBOR (RFC 8949 §3.1): smithy's rpc-v2-cbor."""
    pairs = (("__type", f"{_CODE}Exception"), ("message", text))
    encoded = b"".join(_cbor_text(word) for pair in pairs for word in pair)
    return "application/cbor", b"\xa2" + encoded


def _cbor_text(text: str) -> bytes:
    octets = text.encode()
    return b"\x79" + len(octets).to_bytes(2, "big") + octets
