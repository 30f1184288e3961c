"""The content that actions store and publish: the mail as received, under the headers SES adds.

The order is that of recorded SES mail: Return-Path and Received (which are kept with the message
already), the verdicts, Received-SPF, Authentication-Results, X-SES-RECEIPT, what AddHeader
actions add, then the mail. Fields of the mail itself that claim to be such results of this
server are left out: they are forged (RFC 8601 §5).
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.header import Header

from sendback.mail.address import AddressError, canonical_domain
from sendback.mail.authentication_results import authserv_id
from sendback.mail.headers import header_fields, split_trace, unfolded
from sendback.receipt.model import Action, AddHeaderAction
from sendback.receipt.verdicts import Verdicts

# The recorded verdicts of SES are of spam and viruses; readers may look for others.
_FORGEABLE = re.compile(rb"x-ses-(?:receipt|.*verdict)", re.IGNORECASE | re.DOTALL)
_WORD = re.compile(r"[^A-Za-z0-9.@_+=:\[\]-]")
_MAX_WORD = 320


@dataclass(frozen=True, slots=True)
class Arrival:
    """The origin of a message, as in its trace fields."""

    message_id: str
    hostname: str
    client_ip: str
    helo: str
    reverse_path: str


def published_header(
    kept: bytes,
    arrival: Arrival,
    verdicts: Verdicts | None,
    added: Sequence[Action] = (),
    *,
    scanned: bool,
) -> bytes:
    """Return the published header section. `kept` is the stored one, trace fields first."""
    trace, own = split_trace(kept)
    lines = _results(arrival, verdicts, scanned=scanned) if verdicts else []
    token = base64.b64encode(hashlib.sha256(arrival.message_id.encode() + kept).digest())
    lines.append(f"X-SES-RECEIPT: {token.decode('ascii')}")
    lines += [_added(action) for action in added if isinstance(action, AddHeaderAction)]
    block = "".join(line + "\r\n" for line in lines).encode()
    return trace + block + _without_forgeries(own, arrival.hostname)


def _results(arrival: Arrival, verdicts: Verdicts, *, scanned: bool) -> list[str]:
    lines = []
    if scanned:
        lines.append(f"X-SES-Spam-Verdict: {verdicts.spam}")
        lines.append(f"X-SES-Virus-Verdict: {verdicts.virus}")
    if verdicts.authentication_disabled:
        return lines
    return [*lines, _received_spf(arrival, verdicts), _authentication_results(arrival, verdicts)]


# RFC 7208 §9.1: the comment is for people.
_SPF_COMMENTS = {
    "pass": "domain of {domain} designates {ip} as permitted sender",
    "fail": "domain of {domain} does not designate {ip} as permitted sender",
    "softfail": "domain of transitioning {domain} does not designate {ip} as permitted sender",
    "neutral": "{ip} is neither permitted nor denied by domain of {domain}",
    "none": "domain of {domain} does not designate permitted sender hosts",
    "temperror": "error in processing during lookup of {domain}: DNS timeout",
    "permerror": "error in processing of the policy of {domain}",
}


def _received_spf(arrival: Arrival, verdicts: Verdicts) -> str:
    ip = arrival.client_ip.removeprefix("IPv6:")
    comment = _SPF_COMMENTS[verdicts.spf.result].format(domain=_word(verdicts.spf.domain), ip=ip)
    return (
        f"Received-SPF: {verdicts.spf.result} (spfCheck: {comment}) client-ip={ip}; "
        f"envelope-from={_word(arrival.reverse_path)}; helo={_word(arrival.helo)};"
    )


def _authentication_results(arrival: Arrival, verdicts: Verdicts) -> str:
    """Return the Authentication-Results field (RFC 8601 §2.2)."""
    spf = _received_spf(arrival, verdicts).removeprefix("Received-SPF: ")
    dkim = [
        f"dkim={signature.result} header.i=@{_word(signature.domain)};"
        for signature in verdicts.dkim
    ]
    parts = [f"spf={spf}", *(dkim or ["dkim=none;"])]
    domain = f" header.from={_word(verdicts.dmarc.domain)}" if verdicts.dmarc.domain else ""
    parts.append(f"dmarc={verdicts.dmarc.result}{domain};")
    return "\r\n ".join([f"Authentication-Results: {arrival.hostname};", *parts])


def _word(text: str) -> str:
    """Return untrusted text with characters outside a safe set replaced, and cut."""
    return _WORD.sub("?", text)[:_MAX_WORD]


def _added(action: AddHeaderAction) -> str:
    """Return an added field; a long or non-ASCII value is folded and encoded (RFC 2047)."""
    value = action.header_value
    if value.isascii() and len(action.header_name) + len(value) < 990:  # noqa: PLR2004 - RFC 5322 §2.1.1
        return f"{action.header_name}: {value}"
    encoded = Header(value, header_name=action.header_name).encode(linesep="\r\n")
    return f"{action.header_name}: {encoded}"


def _without_forgeries(own: bytes, hostname: str) -> bytes:
    return b"".join(raw for name, raw in header_fields(own) if not _is_forged(name, raw, hostname))


def _is_forged(name: bytes, raw: bytes, hostname: str) -> bool:
    if _FORGEABLE.fullmatch(name):
        return True
    if name.lower() != b"authentication-results":
        return False
    server = authserv_id(unfolded(raw.partition(b":")[2]).decode("utf-8", "replace"))
    return server is None or _same_host(server, hostname)


def _same_host(server: str, hostname: str) -> bool:
    server = "".join(character for character in server if character.isprintable())
    try:
        server = canonical_domain(server.strip("."))
    except AddressError:
        server = server.strip(".").lower()
    return server == hostname.rstrip(".").lower()
