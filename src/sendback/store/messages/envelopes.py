"""The JSON form of envelopes in the database."""

import json
from dataclasses import asdict
from typing import Any

from sendback.mail.address import Address
from sendback.mail.envelope import (
    Client,
    Envelope,
    GivenVerdicts,
    Notify,
    OriginalRecipient,
    Recipient,
    Ret,
    ReversePath,
)


def envelope_to_json(envelope: Envelope) -> str:
    """Return the envelope as compact JSON without members for absent parameters."""
    client = envelope.client
    value: dict[str, Any] = {
        "client": [client.ip, client.helo, client.tls],
        "from": _address_to_json(envelope.reverse_path.address),
        "to": [_recipient_to_json(recipient) for recipient in envelope.recipients],
    }
    if envelope.ret:
        value["ret"] = envelope.ret.value
    if envelope.envelope_id is not None:
        value["envid"] = envelope.envelope_id
    if envelope.smtputf8:
        value["smtputf8"] = True
    if envelope.body_8bit:
        value["8bit"] = True
    if envelope.verdicts:
        given = asdict(envelope.verdicts)
        value["verdicts"] = {name: text for name, text in given.items() if text is not None}
    return json.dumps(value, separators=(",", ":"))


def envelope_from_json(text: str) -> Envelope:
    """Return the envelope of the JSON that `envelope_to_json` returned."""
    value = json.loads(text)
    return Envelope(
        client=Client(*value["client"]),
        reverse_path=ReversePath(Address(*value["from"]) if value["from"] else None),
        recipients=tuple(_recipient_from_json(item) for item in value["to"]),
        ret=Ret(value["ret"]) if "ret" in value else None,
        envelope_id=value.get("envid"),
        smtputf8=value.get("smtputf8", False),
        body_8bit=value.get("8bit", False),
        verdicts=GivenVerdicts(**value["verdicts"]) if "verdicts" in value else None,
    )


def _address_to_json(address: Address | None) -> list[str] | None:
    return [address.local, address.domain] if address else None


def _recipient_to_json(recipient: Recipient) -> dict[str, Any]:
    value: dict[str, Any] = {"at": _address_to_json(recipient.address)}
    if recipient.notify:
        value["notify"] = sorted(recipient.notify)
    if recipient.original:
        value["orcpt"] = [recipient.original.address_type, recipient.original.address]
    return value


def _recipient_from_json(value: dict[str, Any]) -> Recipient:
    return Recipient(
        address=Address(*value["at"]),
        notify=frozenset(Notify(word) for word in value.get("notify", ())),
        original=OriginalRecipient(*value["orcpt"]) if "orcpt" in value else None,
    )
