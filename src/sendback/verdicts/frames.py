"""The protocol between a server and the processes that authenticate mail, over pipes.

The server sends frames: two lengths, a JSON object, and the octets of the header section with the
body if that is in memory. A process sends lines of JSON, each with the result of one method. Its
output is not trusted: it has parsed hostile mail.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from sendback.mail.address import Address
from sendback.mail.envelope import Client, ReversePath
from sendback.receipt.verdicts import (
    DKIM_VERDICTS,
    DMARC_VERDICTS,
    SPF_VERDICTS,
    DkimResult,
    DmarcResult,
    SpfResult,
)
from sendback.service.rules.content import Content, LocalBody, MailToCheck
from sendback.verdicts.methods import METHODS, Method, Result, Results

MAILS_AT_ONCE = 16  # in one process: most of their time is spent waiting for DNS
MAX_LINE_OCTETS = 64 * 1024
_LENGTHS = struct.Struct("!II")
_MAX_RESULTS = 20
_MAX_NOTES = 20
_MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """One mail to authenticate. `number` is repeated in its results.

    `seconds` is for its lookups; `known` has the methods whose results are known already.
    """

    number: int
    mail: MailToCheck
    seconds: float
    known: Results


@dataclass(frozen=True, slots=True)
class MethodResult:
    """The result of one method, with the lines that explain it."""

    number: int
    method: Method
    result: Result
    notes: tuple[str, ...] = ()


def write_request(request: Request) -> bytes:
    """Return the frame. A body must be in memory or a `LocalBody`: the process has no store."""
    mail, content = request.mail, request.mail.content
    address = mail.reverse_path.address
    in_memory = content.body if isinstance(content.body, bytes) else b""
    value = {
        "number": request.number,
        "name": mail.name,
        "ip": mail.client.ip,
        "helo": mail.client.helo,
        "sender": [address.local, address.domain] if address else None,
        "received_at": mail.received_at.timestamp(),
        "header_size": len(content.header),
        "body_size": content.body_size,
        "file": str(content.body.path.absolute()) if isinstance(content.body, LocalBody) else None,
        "seconds": request.seconds,
        "known": {method: _as_json(result) for method, result in request.known.items()},
    }
    text = json.dumps(value).encode()
    octets = content.header + in_memory
    return _LENGTHS.pack(len(text), len(octets)) + text + octets


def read_request(stream: BinaryIO) -> Request | None:
    """Return the next request; None at the end. Blocks."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    text_size, octets_size = _LENGTHS.unpack(lengths)
    value, octets = json.loads(stream.read(text_size)), stream.read(octets_size)
    header = octets[: value["header_size"]]
    size = value["body_size"]
    body = LocalBody(Path(value["file"]), size) if value["file"] else octets[len(header) :]
    mail = MailToCheck(
        name=value["name"],
        client=Client(ip=value["ip"], helo=value["helo"]),
        reverse_path=ReversePath(Address(*value["sender"]) if value["sender"] else None),
        received_at=datetime.fromtimestamp(value["received_at"], UTC),
        content=Content(header, body, size),
    )
    known = {method: _result(method, result) for method, result in value["known"].items()}
    return Request(value["number"], mail, value["seconds"], known)


def write_result(answer: MethodResult) -> bytes:
    """Return the line."""
    value = {
        "number": answer.number,
        "method": answer.method,
        "result": _as_json(answer.result),
        "notes": [note[:_MAX_TEXT] for note in answer.notes[:_MAX_NOTES]],
    }
    return json.dumps(value).encode() + b"\n"


def read_result(line: bytes) -> MethodResult:
    """Parse a line of a process. Raise `ValueError` for an invalid line."""
    try:
        value = json.loads(line)
        number, method, notes = value["number"], value["method"], value["notes"]
        if not isinstance(number, int) or method not in METHODS or len(notes) > _MAX_NOTES:
            raise ValueError("not an answer")
        return MethodResult(
            number, method, _result(method, value["result"]), tuple(map(_text, notes))
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not an answer: {error!r}") from None


def _as_json(result: Result) -> Any:
    return [asdict(entry) for entry in result] if isinstance(result, tuple) else asdict(result)


def _result(method: Method, value: Any) -> Result:
    """Raises `ValueError`, `TypeError`, `KeyError`."""
    match method:
        case "spf":
            return SpfResult(**_fields(SpfResult, value, SPF_VERDICTS))
        case "dmarc":
            return DmarcResult(**_fields(DmarcResult, value, DMARC_VERDICTS))
        case "dkim":
            if not isinstance(value, list) or len(value) > _MAX_RESULTS:
                raise ValueError("not a list of results")
            return tuple(DkimResult(**_fields(DkimResult, entry, DKIM_VERDICTS)) for entry in value)


def _fields(kind: type[Any], value: Any, results: Mapping[str, object]) -> dict[str, Any]:
    """Return the fields of a result that is one of `results`."""
    if not isinstance(value, dict) or value.keys() != {entry.name for entry in fields(kind)}:
        raise ValueError("not a result")
    if value["result"] not in results:
        raise ValueError("not a known result")
    return {name: None if text is None else _text(text) for name, text in value.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ValueError("not a text")
    return value
