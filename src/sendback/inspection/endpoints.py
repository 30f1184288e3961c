"""The table of endpoints: what is served, and what the OpenAPI document says about it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from starlette.responses import Response

from sendback.inspection import bounces, event_stream, faults, localstack, messages, server
from sendback.inspection.calls import Call
from sendback.inspection.services import InspectionServices

Handler = Callable[[Call, InspectionServices], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method of a path; a name in braces is one segment.

    `body` is the schema of the request, `answers` has those of the answers by status: an empty
    name means no JSON.
    """

    method: str
    path: str
    handler: Handler
    about: str
    answers: Mapping[int, str]
    parameters: tuple[str, ...] = ()
    body: str = ""
    media_type: str = "application/json"
    errors: tuple[int, ...] = field(default=(400, 401, 403))


# What the parameters of query strings mean.
PARAMETERS = {
    "account": "The account's ID; without it, the first account.",
    "after": "Only what is behind this ID.",
    "email": "Only mail from this address.",
    "id": "Only the mail with this ID.",
    "kind": "Only events of these kinds, separated by commas.",
    "limit": "At most so many, 1 to 1000; without it, 50.",
    "original": "Only bounces of the received message with this ID.",
    "recipient": "Only with this recipient; for bounces, a recipient that is bounced.",
    "sender": "Only from this reverse-path; <> is the null one.",
    "state": "Only in this state of processing: queued, held, done, dropped.",
    "subject": "Only if the subject contains this text, in any case.",
    "to": "Only bounces that go to this address.",
    "wait": "Wait until there is at least one, for up to so long: 5s, at most 60s.",
}

_LIST = ("account", "after", "limit", "wait")

ENDPOINTS = (
    Endpoint(
        "GET",
        "/_sendback/messages",
        messages.list_messages,
        "List received messages, in the order of receipt.",
        {200: "Messages"},
        (*_LIST, "sender", "recipient", "subject", "state"),
        errors=(400, 401, 403, 503),
    ),
    Endpoint(
        "POST",
        "/_sendback/messages",
        messages.inject,
        "Receive a message as by SMTP.",
        {201: "Accepted", 422: "Refused"},
        body="Injection",
        errors=(400, 401, 403, 415),
    ),
    Endpoint(
        "DELETE",
        "/_sendback/messages",
        messages.delete_messages,
        "Delete all received messages whose rules are finished.",
        {200: "Deleted"},
        ("account",),
    ),
    Endpoint(
        "GET",
        "/_sendback/messages/{id}",
        messages.show_message,
        "Show a received message with its rule steps.",
        {200: "Message"},
        ("account",),
        errors=(400, 401, 403, 404, 409),
    ),
    Endpoint(
        "DELETE",
        "/_sendback/messages/{id}",
        messages.delete_message,
        "Delete a received message; its bounces stay.",
        {204: ""},
        ("account",),
        errors=(400, 401, 403, 404, 409),
    ),
    Endpoint(
        "GET",
        "/_sendback/messages/{id}/raw",
        messages.raw,
        "Return a received message as it is stored.",
        {200: ""},
        ("account",),
        media_type="message/rfc822",
        errors=(400, 401, 403, 404, 409, 410),
    ),
    Endpoint(
        "GET",
        "/_sendback/bounces",
        bounces.list_bounces,
        "List bounces, in the order in which they were queued.",
        {200: "Bounces"},
        (*_LIST, "original", "recipient", "to"),
        errors=(400, 401, 403, 503),
    ),
    Endpoint(
        "GET",
        "/_sendback/bounces/{id}",
        bounces.show_bounce,
        "Show a bounce with its delivery attempts and its report.",
        {200: "Bounce"},
        ("account",),
        errors=(400, 401, 403, 404),
    ),
    Endpoint(
        "GET",
        "/_sendback/bounces/{id}/raw",
        bounces.raw,
        "Return a bounce as it is sent.",
        {200: ""},
        ("account",),
        media_type="message/rfc822",
        errors=(400, 401, 403, 404),
    ),
    Endpoint(
        "GET",
        "/_sendback/faults",
        faults.list_faults,
        "List the faults with their counters, in the order in which they are tried.",
        {200: "Faults"},
    ),
    Endpoint(
        "POST",
        "/_sendback/faults",
        faults.add_fault,
        "Add a fault: the server fails on purpose.",
        {201: "Fault"},
        body="NewFault",
        errors=(400, 401, 403, 409, 415),
    ),
    Endpoint(
        "DELETE",
        "/_sendback/faults",
        faults.clear_faults,
        "Remove all faults.",
        {200: "Cleared"},
    ),
    Endpoint(
        "DELETE",
        "/_sendback/faults/{name}",
        faults.remove_fault,
        "Remove a fault.",
        {204: ""},
        errors=(400, 401, 403, 404),
    ),
    Endpoint(
        "GET",
        "/_sendback/clock",
        server.show_clock,
        "Return the date of the server.",
        {200: "Clock"},
    ),
    Endpoint(
        "POST",
        "/_sendback/clock",
        server.advance_clock,
        "Move the clock forward: what is due by the new date begins.",
        {200: "Clock"},
        body="Advance",
        errors=(400, 401, 403, 409, 415),
    ),
    Endpoint(
        "POST",
        "/_sendback/reset",
        server.reset,
        "Delete everything: mail, identities, rules, keys.",
        {204: ""},
        body="Nothing",
        errors=(400, 401, 403, 409, 415),
    ),
    Endpoint(
        "GET",
        "/_sendback/events",
        event_stream.follow,
        "Follow what happens, as server-sent events; Last-Event-ID repeats what was missed.",
        {200: ""},
        ("account", "after", "kind"),
        media_type="text/event-stream",
        errors=(400, 401, 403, 503),
    ),
    Endpoint(
        "GET",
        "/_aws/ses",
        localstack.sent,
        "List sent mail in the form of LocalStack.",
        {200: "SentMail"},
        ("account", "email", "id"),
    ),
    Endpoint(
        "DELETE",
        "/_aws/ses",
        localstack.delete,
        "Forget sent mail that is not queued.",
        {204: ""},
        ("account", "id"),
    ),
    Endpoint(
        "GET",
        "/api/v1/chaos",
        faults.show_chaos,
        "Return the chaos triggers in the form of Mailpit.",
        {200: "Chaos"},
    ),
    Endpoint(
        "PUT",
        "/api/v1/chaos",
        faults.set_chaos,
        "Set the chaos triggers; one that is missing is off.",
        {200: "Chaos"},
        body="NewChaos",
        errors=(400, 401, 403, 409, 415),
    ),
)
