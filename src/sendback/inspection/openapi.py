"""The OpenAPI document of the API (OpenAPI 3.1), made from the table of endpoints."""

import re
from typing import Any

from sendback import __version__
from sendback.faults.model import Failure, Point
from sendback.faults.rules import MAX_DELAY
from sendback.inspection.endpoints import ENDPOINTS, PARAMETERS, Endpoint
from sendback.service.events.model import EventKind
from sendback.store.outbox.rows import OutboxState, Outcome
from sendback.store.rules.processing import ProcessingState

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_NUMBER = {"type": "integer"}
_DATE = {"type": "string", "format": "date-time"}
_DATE_OR_NULL = {"type": ["string", "null"], "format": "date-time"}
_TEXTS = {"type": "array", "items": _TEXT}


def _object(members: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the schema of an object that has exactly these members."""
    return {
        "type": "object",
        "properties": members,
        "required": [name for name in members if name not in optional],
        "additionalProperties": False,
    }


def _list_of(schema: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(schema)}


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _one_of(values: Any, *, or_null: bool = False) -> dict[str, Any]:
    return {"enum": [*(value.value for value in values), *([None] if or_null else [])]}


_MESSAGE_ROW = {
    "message_id": _TEXT,
    "received_at": _DATE,
    "expires_at": _DATE,
    "from": _TEXT_OR_NULL,
    "to": _TEXTS,
    "subject": _TEXT_OR_NULL,
    "size": _NUMBER,
}
_VERDICTS = ("spam_verdict", "virus_verdict", "spf_verdict", "dkim_verdict", "dmarc_verdict")
_BOUNCE_ROW = {
    "message_id": _TEXT,
    "original_message_id": _TEXT,
    "created_at": _DATE,
    "sender": _TEXT_OR_NULL,
    "recipient": _TEXT,
    "state": _one_of(OutboxState),
    "attempts": _NUMBER,
    "due_at": _DATE_OR_NULL,
    "last_reply": _TEXT_OR_NULL,
    "dsn": {"oneOf": [_ref("Dsn"), {"type": "null"}]},
}
_COUNT = {"type": "integer", "minimum": 1}
_FAULT = {
    "at": _one_of(Point),
    "name": _TEXT,
    **dict.fromkeys(("client", "sender", "recipient", "operation", "action"), _TEXT),
    **dict.fromkeys(("first", "every", "from", "only"), _COUNT),
    "probability": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "seed": _NUMBER,
    "delay": {"type": "number", "minimum": 0, "maximum": MAX_DELAY},
    "reply": _TEXT,
    "drop": {"type": "boolean"},
    "error": _TEXT,
    "lost": {"type": "boolean"},
    "failure": _one_of(Failure),
    "text": _TEXT,
}
_OPTIONAL_OF_FAULT = tuple(name for name in _FAULT if name != "at")
_TRIGGER = {
    "ErrorCode": {"type": "integer", "minimum": 400, "maximum": 599},
    "Probability": {"type": "integer", "minimum": 0, "maximum": 100},
}
_TRIGGERS = ("Sender", "Recipient", "Authentication")
_REPLY = {"reply": _TEXT, "code": _NUMBER, "enhanced_code": _TEXT_OR_NULL}
_REPLIES = {"type": "object", "additionalProperties": _ref("Reply")}

SCHEMAS: dict[str, Any] = {
    "Error": _object({"error": _object({"code": _TEXT, "message": _TEXT})}),
    "Messages": _object({"messages": _list_of("MessageRow"), "next": _TEXT_OR_NULL}),
    "MessageRow": _object({**_MESSAGE_ROW, "processing": _one_of(ProcessingState, or_null=True)}),
    "Message": _object(
        {
            **_MESSAGE_ROW,
            "client": _TEXT,
            "helo": _TEXT,
            "tls": _TEXT_OR_NULL,
            "envid": _TEXT_OR_NULL,
            "ret": _TEXT_OR_NULL,
            "notify": {"type": "array", "items": _TEXT_OR_NULL},
            "orcpt": {"type": "array", "items": _TEXT_OR_NULL},
            "rule_set": _TEXT_OR_NULL,
            "header": _TEXT,
            "processing": _one_of(ProcessingState),
            "reason": _TEXT_OR_NULL,
            **dict.fromkeys(_VERDICTS, _TEXT),
            "steps": _list_of("Step"),
        },
        ("processing", "reason", "steps", *_VERDICTS),
    ),
    "Step": _object(
        {
            "at": _DATE,
            "rule": _TEXT,
            "action": _TEXT,
            "outcome": _TEXT,
            "disposition": _TEXT,
            "attempts": _NUMBER,
            "milliseconds": _NUMBER,
            "next_at": _DATE_OR_NULL,
            "result": _TEXT,
        }
    ),
    "Injection": _object(
        {
            "from": _TEXT_OR_NULL,
            "to": {"oneOf": [_TEXT, {**_TEXTS, "minItems": 1}]},
            "raw": _TEXT,
            "raw_base64": _TEXT,
            "subject": _TEXT,
            "text": _TEXT,
            "client_ip": _TEXT,
            "helo": _TEXT,
            "verdicts": {"type": "object", "additionalProperties": _TEXT},
        },
        ("from", "raw", "raw_base64", "subject", "text", "client_ip", "helo", "verdicts"),
    ),
    "Reply": _object(_REPLY),
    "Accepted": _object({"message_id": _TEXT, **_REPLY, "recipients": _REPLIES}),
    "Refused": _object({**_REPLY, "recipients": _REPLIES}),
    "Deleted": _object({"deleted": _NUMBER, "kept": _NUMBER}),
    "Bounces": _object({"bounces": _list_of("BounceRow"), "next": _TEXT_OR_NULL}),
    "BounceRow": _object(_BOUNCE_ROW),
    "Bounce": _object({**_BOUNCE_ROW, "tries": _list_of("Attempt")}),
    "Attempt": _object(
        {
            "started_at": _DATE,
            "milliseconds": _NUMBER,
            "outcome": _one_of(Outcome),
            "peer": _TEXT_OR_NULL,
            "tls": _TEXT_OR_NULL,
            "tls_policy": _TEXT_OR_NULL,
            "reply": _TEXT_OR_NULL,
        }
    ),
    "Dsn": _object(
        {
            "reporting_mta": _TEXT_OR_NULL,
            "arrival_date": _TEXT_OR_NULL,
            "original_envelope_id": _TEXT_OR_NULL,
            "explanation": _TEXT,
            "recipients": _list_of("DsnRecipient"),
        }
    ),
    "DsnRecipient": _object(
        {
            "final_recipient": _TEXT,
            "action": _TEXT,
            "status": _TEXT,
            "diagnostic": _TEXT_OR_NULL,
            "fields": {"type": "array", "items": {**_TEXTS, "minItems": 2, "maxItems": 2}},
        }
    ),
    "Clock": _object({"now": _DATE}),
    "Advance": _object({"advance": _TEXT}),
    "Nothing": _object({}),
    "Faults": _object({"faults": _list_of("Fault")}),
    "Fault": _object(
        {**_FAULT, "matched": _NUMBER, "injected": _NUMBER, "created_at": _DATE},
        tuple(name for name in _OPTIONAL_OF_FAULT if name != "name"),
    ),
    "NewFault": _object(_FAULT, _OPTIONAL_OF_FAULT),
    "Cleared": _object({"deleted": _NUMBER}),
    "Chaos": _object(dict.fromkeys(_TRIGGERS, _ref("Trigger"))),
    "NewChaos": _object(dict.fromkeys(_TRIGGERS, _ref("NewTrigger")), _TRIGGERS),
    "Trigger": _object(_TRIGGER),
    "NewTrigger": _object(_TRIGGER, tuple(_TRIGGER)),
    "Event": {
        "type": "object",
        "properties": {
            "id": _TEXT,
            "kind": _one_of(EventKind),
            "date": _DATE,
            "account_id": _TEXT_OR_NULL,
            "message_id": _TEXT_OR_NULL,
        },
        "required": ["id", "kind", "date", "account_id", "message_id"],
    },
    "SentMail": _object({"messages": _list_of("SentMessage")}),
    "SentMessage": _object(
        {
            "Id": _TEXT,
            "Region": _TEXT,
            "Timestamp": _TEXT,
            "Source": _TEXT_OR_NULL,
            "Destination": _object({"ToAddresses": _TEXTS}),
            "Subject": _TEXT_OR_NULL,
            "Body": _object({"text_part": _TEXT_OR_NULL, "html_part": _TEXT_OR_NULL}),
            "RawData": _TEXT,
        }
    ),
}


def document() -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sendback's inspection and control API", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", endpoint.path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names
    ] + [
        {"name": name, "in": "query", "description": PARAMETERS[name], "schema": _TEXT}
        for name in endpoint.parameters
    ]
    responses = {
        str(status): _response(endpoint, schema) for status, schema in endpoint.answers.items()
    } | {str(status): _json_response("An error.", "Error") for status in endpoint.errors}
    found: dict[str, Any] = {
        "summary": endpoint.about,
        "parameters": parameters,
        "responses": responses,
    }
    if endpoint.body:
        content = {"application/json": {"schema": _ref(endpoint.body)}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _response(endpoint: Endpoint, schema: str) -> dict[str, Any]:
    if schema:
        return _json_response(endpoint.about, schema)
    if endpoint.media_type == "application/json":
        return {"description": endpoint.about}
    content = {endpoint.media_type: {"schema": _TEXT}}
    return {"description": endpoint.about, "content": content}


def _json_response(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(schema)}}
    return {"description": description, "content": content}
