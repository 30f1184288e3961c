"""Encode results and errors of the Query protocol as XML, by the model's shapes. Pure."""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from sendback.aws.errors import SesError

CONTENT_TYPE = "text/xml"
NAMESPACE = "http://ses.amazonaws.com/doc/2010-12-01/"
# XML 1.0 §2.2: no document may hold these, escaped or not.
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;"})


def escape(text: str) -> str:
    """Return text as element content; characters that XML forbids become U+FFFD."""
    return _NOT_XML.sub("\ufffd", text).translate(_ESCAPES)


def encode_success(operation: OperationModel, output: Mapping[str, Any], request_id: str) -> bytes:
    """Return `<XResponse><XResult>…</XResult><ResponseMetadata>…`; no XResult without a shape."""
    shape = operation.output_shape
    result = ""
    if shape is not None:
        wrapper = shape.serialization.get("resultWrapper", f"{operation.name}Result")
        result = f"<{wrapper}>{_members(shape, output)}</{wrapper}>"
    name = f"{operation.name}Response"
    return (
        f'<{name} xmlns="{NAMESPACE}">{result}'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{name}>"
    ).encode()


def encode_error(error: SesError, request_id: str) -> bytes:
    """Return `<ErrorResponse><Error><Type>…`; extra members follow Code and Message."""
    extra = "".join(f"<{key}>{escape(text)}</{key}>" for key, text in error.members.items())
    return (
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>{error.fault}</Type>'
        f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message>{extra}</Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    ).encode()


def _members(shape: StructureShape, value: Mapping[str, Any]) -> str:
    return "".join(
        _element(member, member_shape, value[member])
        for member, member_shape in shape.members.items()
        if value.get(member) is not None
    )


def _element(name: str, shape: Shape, value: Any) -> str:
    return f"<{name}>{_content(shape, value)}</{name}>"


def _content(shape: Shape, value: Any) -> str:
    if isinstance(shape, StructureShape):
        return _members(shape, value)
    if isinstance(shape, ListShape):
        return "".join(_element("member", shape.member, item) for item in value)
    if isinstance(shape, MapShape):
        return "".join(_entry(shape, key, item) for key, item in value.items())
    return escape(_scalar(value))


def _entry(shape: MapShape, key: str, value: Any) -> str:
    return (
        f"<entry>{_element('key', shape.key, key)}{_element('value', shape.value, value)}</entry>"
    )


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)
