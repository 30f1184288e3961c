"""What DNS answers for a record that is to be published, and records as text of a zone. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sendback.net.dns_answers import joined
from sendback.service.identities.dkim_keys import DnsRecord, has_same_key

_STRING = 255  # RFC 1035 §3.3: octets of a character-string


class AnswerState(StrEnum):
    """How the records of DNS compare with the wanted one."""

    FOUND = "found"
    MISSING = "missing"
    DIFFERENT = "different"
    UNKNOWN = "no answer"


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """The state of a record; `text` is what DNS has instead, or why there is no answer."""

    state: AnswerState
    text: str = ""


def compare(record: DnsRecord, found: Sequence[Any]) -> RecordAnswer:
    """Return how the records (dnspython's rdata) of the name and type compare with the wanted."""
    if record.kind == "MX":
        hosts = sorted({str(one.exchange).rstrip(".").lower() for one in found})
        is_there = hosts == [record.value.split()[-1].rstrip(".").lower()]
        return _answer(hosts, is_there=is_there)
    texts = [joined(one) for one in found]
    wanted = record.value.encode()
    if wanted.startswith(b"v=spf1"):  # other TXT records may be beside it (RFC 7208 §3.2)
        texts = [text for text in texts if text.lower().split()[:1] == [b"v=spf1"]]
        is_there = [text.lower().split() for text in texts] == [wanted.lower().split()]
    elif wanted.startswith(b"v=DKIM1"):
        is_there = any(has_same_key(text, wanted) for text in texts)
    else:
        is_there = any(text.strip() == wanted for text in texts)
    return _answer([text.decode("utf-8", "replace") for text in texts], is_there=is_there)


def _answer(texts: Sequence[str], *, is_there: bool) -> RecordAnswer:
    if is_there:
        return RecordAnswer(AnswerState.FOUND)
    if not texts:
        return RecordAnswer(AnswerState.MISSING)
    return RecordAnswer(AnswerState.DIFFERENT, ", ".join(texts))


def zone_text(records: Sequence[DnsRecord]) -> str:
    """Return the records as lines of a zone file (RFC 1035 §5.1)."""
    return "\n".join(f"{record.name}. 300 IN {record.kind} {_data(record)}" for record in records)


def _data(record: DnsRecord) -> str:
    if record.kind != "TXT":
        return f"{record.value}."
    escaped = (
        record.value[at : at + _STRING].replace("\\", "\\\\").replace('"', '\\"')
        for at in range(0, len(record.value), _STRING)
    )
    return " ".join(f'"{text}"' for text in escaped)
