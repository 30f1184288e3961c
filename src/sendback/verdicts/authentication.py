"""DMARC by `receipt.dmarc`. Synchronous: it waits for DNS."""

from functools import cache
from typing import Any

from publicsuffixlist import PublicSuffixList

from sendback.mail.address import AddressError, canonical_domain, parse_address
from sendback.mail.headers import field_values
from sendback.receipt.dmarc import choose_record, evaluate
from sendback.receipt.verdicts import DkimResult, DmarcResult, SpfResult
from sendback.resolver import DnsFailedError
from sendback.verdicts.look_ups import Budget


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
