"""SPF (RFC 7208) by pyspf, with bounded input. Synchronous: it blocks on DNS.

pyspf has patterns and loops whose work grows with the square of a record or a term (`RE_TOPLAB`,
`RE_CHAR`, `expand`), so its input is bounded here: the octets and terms of a record, the
octets of a term, the records of all answers together. RFC 7208 §4.6.4 bounds the rest: ten terms
that query DNS, ten MX and PTR names each, two void look-ups.
"""

import threading
import warnings
from collections.abc import Callable
from typing import Any

from sendback.net.dns_answers import DnsFailedError
from sendback.receipt.verdicts import SPF_VERDICTS, SpfResult
from sendback.service.rules.content import MailToCheck
from sendback.verdicts.look_ups import Budget, is_dns_name

with warnings.catch_warnings():
    # Its docstrings have escapes that newer Pythons warn of, on a user's terminal too.
    warnings.simplefilter("ignore")
    import spf

MAX_RECORD_OCTETS = 4096  # RFC 7208 §3.4 recommends 450
MAX_TERMS = 256
MAX_TERM_OCTETS = 512
MAX_RECORDS = 1000  # of all answers to one check together
_MAX_NAME_OCTETS = 253
_MAX_HELO = 255

_current = threading.local()


class _Query(spf.query):  # type: ignore[misc]
    """pyspf's check, without the explanation: its text would be expanded and never shown."""

    def get_explanation(self, spec: str) -> None:
        """Look nothing up (RFC 7208 §6.2)."""


class _LookUps:
    """The lookups of one check."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._records = 0

    def find(self, name: str, kind: str) -> list[Any]:
        """Return the records of a name in the form that pyspf expects.

        Raises `spf.TempError`, `spf.PermError`.
        """
        query = _truncated(name)
        if not is_dns_name(query):
            return []  # RFC 7208 §4.8: no such name
        try:
            records = self._budget.query(query, kind)
        except DnsFailedError as error:
            raise spf.TempError(f"DNS: {error}") from error
        self._records += len(records)
        if self._records > MAX_RECORDS:
            raise spf.PermError(f"more than {MAX_RECORDS} DNS records")
        if kind == "TXT":
            return _policies(records)
        return [_value(kind, record) for record in records]


def check_spf(mail: MailToCheck, budget: Budget, note: Callable[[str], None]) -> SpfResult:
    """Return the result for MAIL FROM, or for HELO when that is null.

    `note` is called with the reason of a permanent or temporary error. Never raises.
    """
    domain, helo = mail.sender_domain, mail.client.helo[:_MAX_HELO]
    if not is_dns_name(domain) or "." not in domain or domain.startswith("["):
        return SpfResult("none", domain)  # RFC 7208 §4.3
    address = mail.reverse_path.address
    sender = address.with_ascii_domain if address else f"postmaster@{helo}"
    ip = mail.client.ip.removeprefix("IPv6:")
    _current.look_ups = _LookUps(budget)
    try:
        result, _, explanation = _Query(ip, sender, helo, timeout=20, querytime=0).check()
    except Exception as error:  # noqa: BLE001 - whatever pyspf makes of a hostile record
        result, explanation = "permerror", repr(error)
    finally:
        _current.look_ups = None
    if result not in SPF_VERDICTS:
        result = "permerror"
    if result in {"permerror", "temperror"}:
        note(f"spf {result} of {domain}: {explanation}")
    return SpfResult(result, domain)


def _look_up(name: str, kind: str, _tcp: bool = True, _timeout: float = 30) -> list[Any]:  # noqa: FBT001 - pyspf's
    """Return ((name, kind), value) pairs; pyspf calls this."""
    look_ups: _LookUps | None = getattr(_current, "look_ups", None)
    if look_ups is None:
        raise spf.TempError("no look-up without a budget")
    return [((name, kind), value) for value in look_ups.find(name, kind)]


# pyspf has no other hook for lookups.
spf.DNSLookup = _look_up


def _truncated(name: str) -> str:
    """Return the name without the labels on the left that make it too long (RFC 7208 §7.3)."""
    excess = len(name) - _MAX_NAME_OCTETS
    return name[name.find(".", excess - 1) + 1 :] if excess > 0 else name


def _policies(records: list[Any]) -> list[Any]:
    """Return the SPF records among TXT records (RFC 7208 §4.5). Raises `spf.PermError`."""
    found = []
    for record in records:
        text = b"".join(record.strings)
        if text[:7].lower() not in {b"v=spf1", b"v=spf1 "}:
            continue
        terms = [term for term in text.split(b" ") if term]
        if len(text) > MAX_RECORD_OCTETS or len(terms) > MAX_TERMS:
            raise spf.PermError("the SPF record is too long")
        if max(map(len, terms)) > MAX_TERM_OCTETS:
            raise spf.PermError("a term of the SPF record is too long")
        found.append((text,))
    return found


def _value(kind: str, record: Any) -> Any:
    match kind:
        case "MX":
            return (record.preference, record.exchange.to_text(omit_final_dot=True))
        case "PTR":
            return record.target.to_text(omit_final_dot=True)
        case _:
            return record.address
