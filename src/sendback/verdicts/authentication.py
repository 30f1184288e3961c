"""SPF by pyspf, DKIM by dkimpy, DMARC by `receipt.dmarc`. Synchronous: run it in a thread.

All look-ups of one message share a budget of time; what is not known when it is used up is a
temporary error. Everything that the libraries make of hostile mail ends in a result.
"""

import logging
import threading
import warnings
from functools import cache
from time import monotonic
from typing import Any

import dkim
from publicsuffixlist import PublicSuffixList

from sendback.mail.address import AddressError, canonical_domain, parse_address
from sendback.mail.headers import field_values
from sendback.receipt.dmarc import choose_record, evaluate
from sendback.receipt.verdicts import DkimResult, DmarcResult, SpfResult
from sendback.resolver import DnsFailedError, Resolver
from sendback.service.processing import Examined

with warnings.catch_warnings():
    # Its docstrings have escapes that newer Pythons warn of, on a user's terminal too.
    warnings.simplefilter("ignore")
    import spf

log = logging.getLogger(__name__)

MAX_SIGNATURES = 5  # of one message: each costs a look-up and a hash of the whole mail

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
    """RFC 7489 §6.6. Several authors, or several From fields, are what no policy can pass."""
    domains = author_domains(header)
    if not domains:
        return DmarcResult()
    if len(domains) > 1:
        return DmarcResult("fail", domains[0], "none")
    domain = domains[0]
    try:
        record = _record(domain, budget)
        is_own = record is not None
        parent = organization(domain)
        if record is None and parent != domain:
            record = _record(parent, budget)
    except DnsFailedError:
        return DmarcResult("temperror", domain)
    return evaluate(domain, record, spf_result, dkim_results, organization, record_is_own=is_own)


def author_domains(header: bytes) -> list[str]:
    """The domains of all addresses in all From fields, in order, each once."""
    from email.utils import getaddresses  # noqa: PLC0415 - of the standard library's heavy ones

    values = [value.decode("utf-8", "replace") for value in field_values(header, "From")]
    domains: dict[str, None] = {}
    for _, text in getaddresses(values):
        try:
            domains[parse_address(text).ascii_domain] = None
        except AddressError:
            continue
    return list(domains)


def organization(domain: str) -> str:
    """The organizational domain (RFC 7489 §3.2); the domain itself when it has none above."""
    return _suffixes().privatesuffix(domain) or domain


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList(only_icann=False)


def _record(domain: str, budget: Budget) -> Any:
    texts = budget.texts(f"_dmarc.{canonical_domain(domain)}")
    return choose_record([text.decode("utf-8", "replace") for text in texts])
