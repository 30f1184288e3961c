"""The events of the server, and their form as JSON. Pure.

What a client sent is in them: each text and each list is cut to a length, so that an event has a
bound whatever it describes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

MAX_TEXT = 500  # characters
MAX_ITEMS = 50
# Of an event that would be too long for a message to other processes.
_SHORT_TEXT = 80
_FEW_ITEMS = 10
# Of the JSON of an event. What has more members than any event of ours is not made by us.
MAX_OCTETS = 32 * 1024


class EventKind(StrEnum):
    """What has happened."""

    RECEIVED = "received"
    REFUSED = "refused"
    STEP = "step"
    BOUNCE = "bounce"
    ATTEMPT = "attempt"
    IDENTITY = "identity"
    SETTING = "setting"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened and is durable, if it changed anything.

    `account_id` is None for what concerns no account, such as a refused client. `message_id` is
    that of the received message, or of the bounce for `bounce` and `attempt`. `fields` has what
    only this kind of event has. `id` is set by the bus; IDs increase.
    """

    kind: EventKind
    account_id: str | None
    date: datetime
    message_id: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0

    def to_dict(self, most_text: int = MAX_TEXT, most_items: int = MAX_ITEMS) -> dict[str, Any]:
        """Return the event as the API shows it."""
        return {
            "id": str(self.id),
            "kind": self.kind.value,
            "date": self.date.isoformat(),
            "account_id": self.account_id,
            "message_id": self.message_id,
            **{name: _bounded(value, most_text, most_items) for name, value in self.fields.items()},
        }

    def to_json(self, most: int = MAX_OCTETS) -> str:
        """Return the event as one line of JSON, of at most `most` octets of ASCII.

        If it would be longer, its texts and lists are cut to a shorter length, or left out.
        """
        text = json.dumps(self.to_dict(), separators=(",", ":"))
        if len(text) <= most:
            return text
        short = json.dumps({**self.to_dict(_SHORT_TEXT, _FEW_ITEMS), "is_cut": True})
        if len(short) <= most:
            return short
        return json.dumps({**self.without_fields().to_dict(), "is_cut": True})

    def with_id(self, number: int) -> "Event":
        """Return the event with an ID; `dataclasses.replace` would take three times as long."""
        return Event(self.kind, self.account_id, self.date, self.message_id, self.fields, number)

    def without_fields(self) -> "Event":
        """Return the event without what only its kind has."""
        return Event(self.kind, self.account_id, self.date, self.message_id, {}, self.id)


_COMMON = ("id", "kind", "date", "account_id", "message_id")


def event_from_dict(value: Any) -> Event:
    """Return the event that `to_dict` showed. Raise `ValueError` for anything else."""
    if not isinstance(value, dict):
        raise ValueError("an event is an object")  # noqa: TRY004 - as for other malformed ones
    try:
        number, kind, date, account_id, message_id = (value.pop(name) for name in _COMMON)
        for text in (account_id, message_id):
            if text is not None and not isinstance(text, str):
                raise ValueError("the IDs of an event are texts")
        moment = datetime.fromisoformat(date)
        return Event(EventKind(kind), account_id, moment, message_id, value, int(number))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an event: {error!r}") from None


def _bounded(value: Any, most_text: int, most_items: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= most_text else f"{value[: most_text - 1]}…"
    if isinstance(value, (list, tuple)):
        return [_bounded(item, most_text, most_items) for item in value[:most_items]]
    if isinstance(value, datetime):
        return value.isoformat()
    return value
