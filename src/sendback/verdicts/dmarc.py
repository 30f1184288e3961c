"""DMARC by `receipt.dmarc`. Synchronous: it blocks on DNS."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache

from publicsuffixlist import PublicSuffixList

from sendback.mail.authors import read_authors
from sendback.net.dns_answers import DnsFailedError
from sendback.receipt.dmarc import (
    DmarcRecord,
    choose_record,
    evaluate,
    evaluate_several,
    has_record,
    requested_policy,
)
from sendback.receipt.verdicts import DkimResult, DmarcResult, SpfResult
from sendback.verdicts.look_ups import Budget

MAX_AUTHORS = 10  # whose policies are looked up; several fail in any case
MAX_LABEL, MAX_NAME = 63, 253  # octets, RFC 1035 §2.3.4


def check_dmarc(
    header: bytes, spf_result: SpfResult, dkim_results: tuple[DkimResult, ...], budget: Budget
) -> DmarcResult:
    """RFC 7489 §6.6. A From without an author does no better than one that fails (§6.6.1)."""
    authors = read_authors(header)
    if not authors.has_field:
        return DmarcResult("none")
    if not authors.domains:  # an address literal has no policy
        return DmarcResult("none" if authors.is_one else "fail")
    if not authors.is_one:
        return evaluate_several(authors.domains, _policies(authors.domains, budget))
    domain = authors.domains[0]
    try:
        record, is_own = _record(domain, budget)
    except DnsFailedError:
        return DmarcResult("temperror", domain)
    return evaluate(domain, record, spf_result, dkim_results, organization, record_is_own=is_own)


def _policies(domains: Sequence[str], budget: Budget) -> set[str]:
    """Return the published policies of these domains, as far as they can be looked up."""
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
    """Return the TXT records; none for a name that is not valid in DNS."""
    name = f"_dmarc.{domain}"
    if len(name) > MAX_NAME or any(len(label) > MAX_LABEL for label in name.split(".")):
        return []
    return [text.decode("utf-8", "replace") for text in budget.texts(name)]


def organization(domain: str) -> str:
    """Return the organizational domain (RFC 7489 §3.2), or the domain itself if it has none."""
    return _suffixes().privatesuffix(domain) or domain


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList(only_icann=False)
