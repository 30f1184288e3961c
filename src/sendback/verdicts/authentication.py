"""SPF by pyspf, DKIM by dkimpy, DMARC by `receipt.dmarc`. Synchronous: run it in a thread.

All look-ups of one message share a budget of time; what is not known when it is used up is a
temporary error. Everything that the libraries make of hostile mail ends in a result.
"""

import logging
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from time import monotonic
from typing import Any

import dkim
from publicsuffixlist import PublicSuffixList

from sendback.mail.authors import read_authors
from sendback.receipt.dmarc import (
    DmarcRecord,
    choose_record,
    evaluate,
    evaluate_several,
    has_record,
    requested_policy,
)
from sendback.receipt.verdicts import DkimResult, DmarcResult, SpfResult
from sendback.resolver import DnsFailedError, Resolver
from sendback.service.processing import Examined

with warnings.catch_warnings():
    # Its docstrings have escapes that newer Pythons warn of, on a user's terminal too.
    warnings.simplefilter("ignore")
    import spf

log = logging.getLogger(__name__)

MAX_SIGNATURES = 5  # of one message: each costs a look-up and a hash of the whole mail
MAX_AUTHORS = 10  # whose policies are looked up; several fail in any case
MAX_LABEL, MAX_NAME = 63, 253  # octets, RFC 1035 §2.3.4

_current = threading.local()


class Budget:
    """How long the look-ups of one message may still take."""

    def __init__(self, resolver: Resolver, seconds: float) -> None:
        self.resolver = resolver
        self._ends = monotonic() + seconds

    @property
    def left(self) -> float:
        return self._ends - monotonic()

    def query(self, name: str, kind: str) -> list[Any]:
        """Raises `DnsFailedError`."""
        if self.left <= 0:
            raise DnsFailedError("the time for look-ups is used up")
        return self.resolver.query(name, kind, self.left)

    def texts(self, name: str) -> list[bytes]:
        """Raises `DnsFailedError`."""
        return [b"".join(record.strings) for record in self.query(name, "TXT")]


def check_spf(examined: Examined, budget: Budget) -> SpfResult:
    """RFC 7208, of MAIL FROM, or of HELO when that is null."""
    helo = examined.client.helo
    address = examined.reverse_path.address
    sender = address.with_ascii_domain if address else ""
    domain = address.ascii_domain if address else helo
    ip = examined.client.ip.removeprefix("IPv6:")
    _current.budget = budget
    try:
        result, _, _ = spf.query(
            ip, sender or f"postmaster@{helo}", helo, timeout=20, querytime=0
        ).check()
    except Exception as error:  # noqa: BLE001 - whatever the library makes of a hostile record
        log.info("SPF of %s broke: %r", domain, error)
        result = "permerror"
    finally:
        _current.budget = None
    return SpfResult(result if result in _SPF_RESULTS else "permerror", domain)


_SPF_RESULTS = {"pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"}


def _lookup(name: str, kind: str, _tcp: bool = True, _timeout: float = 30) -> list[Any]:  # noqa: FBT001 - pyspf's
    """Pyspf's look-up: ((name, kind), value) pairs as its own would answer."""
    budget: Budget | None = getattr(_current, "budget", None)
    if budget is None:
        raise spf.TempError("no look-up without a budget")
    try:
        records = budget.query(name, kind)
    except DnsFailedError as error:
        raise spf.TempError(f"DNS: {error}") from error
    return [((name, kind), _value(kind, record)) for record in records]


def _value(kind: str, record: Any) -> Any:
    match kind:
        case "A" | "AAAA":
            return record.address
        case "MX":
            return (record.preference, record.exchange.to_text(omit_final_dot=True))
        case "PTR":
            return record.target.to_text(omit_final_dot=True)
        case _:
            return tuple(record.strings)


# pyspf has no other place to say who looks up.
spf.DNSLookup = _lookup


def check_dkim(examined: Examined, budget: Budget) -> tuple[DkimResult, ...]:
    """RFC 6376, each signature, up to five."""
    try:
        message = dkim.DKIM(examined.content, minkey=1024)
    except dkim.MessageFormatError:
        return ()
    fields = [value for name, value in message.headers if name.lower() == b"dkim-signature"]
    return tuple(
        _check_signature(message, number, field, budget)
        for number, field in enumerate(fields[:MAX_SIGNATURES])
    )


def _check_signature(message: dkim.DKIM, number: int, field: bytes, budget: Budget) -> DkimResult:
    tags = _tags(field)
    failed = False

    def look_up(name: bytes, timeout: int = 5) -> bytes | None:  # noqa: ARG001 - dkimpy's
        nonlocal failed
        try:
            found = budget.texts(name.decode("ascii").removesuffix("."))
        except (DnsFailedError, UnicodeDecodeError):
            failed = True
            return None
        return found[0] if found else None

    try:
        result = "pass" if message.verify(number, dnsfunc=look_up) else "fail"
    except dkim.DKIMException as error:
        log.info("a DKIM signature of %s: %s", tags.get("d"), error)
        result = "permerror"
    except Exception as error:  # noqa: BLE001 - whatever the library makes of a hostile mail
        log.info("a DKIM signature of %s broke: %r", tags.get("d"), error)
        result = "permerror"
    if failed:
        result = "temperror"
    return DkimResult(result, tags.get("d", ""), tags.get("s", ""))


def _tags(field: bytes) -> dict[str, str]:
    pairs = (part.partition("=") for part in field.decode("utf-8", "replace").split(";"))
    return {name.strip(): "".join(value.split())[:255] for name, _, value in pairs}


def check_dmarc(
    header: bytes, spf_result: SpfResult, dkim_results: tuple[DkimResult, ...], budget: Budget
) -> DmarcResult:
    """RFC 7489 §6.6. A From that names nobody must not do better than one that fails (§6.6.1)."""
    authors = read_authors(header)
    if not authors.is_readable:
        return DmarcResult("fail" if authors.has_field else "none")
    if not authors.domains:
        return DmarcResult("none")  # an address literal has no policy
    domain = authors.domains[0]
    if len(authors.domains) > 1 or authors.has_literal:
        return evaluate_several(authors.domains, _policies(authors.domains, budget))
    try:
        record, is_own = _record(domain, budget)
    except DnsFailedError:
        return DmarcResult("temperror", domain)
    return evaluate(domain, record, spf_result, dkim_results, organization, record_is_own=is_own)


def _policies(domains: Sequence[str], budget: Budget) -> set[str]:
    """What the owners of these domains ask for, as far as it can be found out."""
    found: set[str] = set()
    for domain in domains[:MAX_AUTHORS]:
        with suppress(DnsFailedError):
            record, is_own = _record(domain, budget)
            if record is not None:
                found.add(requested_policy(record, is_own=is_own))
    return found


def _record(domain: str, budget: Budget) -> tuple[DmarcRecord | None, bool]:
    """Return the record that applies, and whether it is the domain's own (RFC 7489 §6.6.3)."""
    texts = _texts(domain, budget)
    parent = organization(domain)
    if has_record(texts) or parent == domain:
        return choose_record(texts), True
    return choose_record(_texts(parent, budget)), False


def _texts(domain: str, budget: Budget) -> list[str]:
    """A name that DNS cannot hold has no records."""
    name = f"_dmarc.{domain}"
    if len(name) > MAX_NAME or any(len(label) > MAX_LABEL for label in name.split(".")):
        return []
    return [text.decode("utf-8", "replace") for text in budget.texts(name)]


def organization(domain: str) -> str:
    """The organizational domain (RFC 7489 §3.2); the domain itself when it has none above."""
    return _suffixes().privatesuffix(domain) or domain


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList(only_icann=False)
