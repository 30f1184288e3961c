"""DMARC (RFC 7489): records, alignment, and the result. The look-ups are somebody else's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sendback.mail.address import AddressError, canonical_domain
from sendback.receipt.verdicts import DkimResult, DmarcResult, SpfResult

_POLICIES = ("none", "quarantine", "reject")

# The organizational domain of a domain (RFC 7489 §3.2): the public suffix list's business.
Organization = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """RFC 7489 §6.3: `p`, `sp`, and whether alignment is strict."""

    policy: str
    subdomain_policy: str
    strict_dkim: bool
    strict_spf: bool


def parse_record(text: str) -> DmarcRecord | None:
    """A `_dmarc` TXT record; None for what is no DMARC record (RFC 7489 §6.6.3)."""
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    tags = {name.strip().lower(): value.strip() for name, _, value in reversed(pairs)}
    if not pairs or (pairs[0][0].strip(), pairs[0][2].strip()) != ("v", "DMARC1"):
        return None
    policy = tags.get("p", "").lower()
    if policy not in _POLICIES:
        if "rua" not in tags:
            return None
        policy = "none"
    subdomains = tags.get("sp", policy).lower()
    return DmarcRecord(
        policy=policy,
        subdomain_policy=subdomains if subdomains in _POLICIES else policy,
        strict_dkim=tags.get("adkim", "r").lower() == "s",
        strict_spf=tags.get("aspf", "r").lower() == "s",
    )


def choose_record(texts: Sequence[str]) -> DmarcRecord | None:
    """Of all TXT records at the name: exactly one DMARC record, or it is as if there were none."""
    records = [record for text in texts if (record := parse_record(text))]
    return records[0] if len(records) == 1 else None


def evaluate(
    domain: str,
    record: DmarcRecord | None,
    spf: SpfResult,
    dkim: Sequence[DkimResult],
    organization: Organization,
    *,
    record_is_own: bool,
) -> DmarcResult:
    """`record_is_own`: found at the domain itself, not at its organizational domain."""
    if record is None:
        return DmarcResult("none", domain)
    policy = record.policy if record_is_own else record.subdomain_policy

    def aligned(other: str, *, strict: bool) -> bool:
        try:
            other = canonical_domain(other)
        except AddressError:
            return False
        return other == domain or (not strict and organization(other) == organization(domain))

    by_spf = spf.result == "pass" and aligned(spf.domain, strict=record.strict_spf)
    by_dkim = any(
        signature.result == "pass" and aligned(signature.domain, strict=record.strict_dkim)
        for signature in dkim
    )
    if by_spf or by_dkim:
        return DmarcResult("pass", domain, policy)
    # One that could not be checked may have been the one that passes.
    unsure = "temperror" in {spf.result, *(signature.result for signature in dkim)}
    return DmarcResult("temperror" if unsure else "fail", domain, policy)
