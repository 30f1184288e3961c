"""DMARC (RFC 7489): records, their discovery, alignment, and the result. Pure.

The caller does the DNS queries. The author's domain comes from `mail.authors`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sendback.mail.address import AddressError, canonical_domain
from sendback.receipt.verdicts import DkimResult, DmarcResult, SpfResult

_POLICIES = ("none", "quarantine", "reject")  # from the mildest to the strictest

# The organizational domain of a domain (RFC 7489 §3.2), by the public suffix list.
Organization = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """RFC 7489 §6.3: `p`, `sp`, and whether alignment is strict."""

    policy: str
    subdomain_policy: str
    strict_dkim: bool
    strict_spf: bool


def parse_record(text: str) -> DmarcRecord | None:
    """Read a `_dmarc` TXT record. Return None for other texts and without a usable policy."""
    tags = _tags(text)
    if tags is None:
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


def _tags(text: str) -> dict[str, str] | None:
    """Return the tags of a DMARC record; None for any other text (RFC 7489 §6.6.3, step 2)."""
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    if not pairs or (pairs[0][0].strip(), pairs[0][2].strip()) != ("v", "DMARC1"):
        return None
    return {name.strip().lower(): value.strip() for name, _, value in reversed(pairs)}


def has_record(texts: Sequence[str]) -> bool:
    """Whether the search ends at a name with these TXT records (RFC 7489 §6.6.3, steps 2 and 3)."""
    return any(_tags(text) is not None for text in texts)


def choose_record(texts: Sequence[str]) -> DmarcRecord | None:
    """Choose among all TXT records at a name; several DMARC records are none (step 5)."""
    records = [text for text in texts if _tags(text) is not None]
    return parse_record(records[0]) if len(records) == 1 else None


def evaluate(
    domain: str,
    record: DmarcRecord | None,
    spf: SpfResult,
    dkim: Sequence[DkimResult],
    organization: Organization,
    *,
    record_is_own: bool,
) -> DmarcResult:
    """Return the result for the only author's domain (RFC 7489 §6.6.2).

    `record_is_own`: found at the domain itself, not at its organizational domain.
    """
    if record is None:
        return DmarcResult("none", domain)

    def aligned(other: str, *, strict: bool) -> bool:
        try:
            other = canonical_domain(other)
        except AddressError:
            return False
        return other == domain or (not strict and organization(other) == organization(domain))

    # Only aligned identifiers count; other results are irrelevant.
    results = {s.result for s in dkim if aligned(s.domain, strict=record.strict_dkim)}
    if aligned(spf.domain, strict=record.strict_spf):
        results.add(spf.result)
    # An aligned identifier with a temporary error might have passed.
    result = next((name for name in ("pass", "temperror") if name in results), "fail")
    return DmarcResult(result, domain, requested_policy(record, is_own=record_is_own))


def requested_policy(record: DmarcRecord, *, is_own: bool) -> str:
    """Return the requested policy: `none`, `quarantine` or `reject` (RFC 7489 §6.3)."""
    return record.policy if is_own else record.subdomain_policy


def evaluate_several(domains: Sequence[str], policies: Collection[str]) -> DmarcResult:
    """Return the result for several authors, which no policy can pass; the strictest one counts.

    RFC 7489 §6.6.1 leaves it to the receiver: a message must not do better for naming more authors.
    """
    strictest = next((name for name in reversed(_POLICIES) if name in policies), "none")
    return DmarcResult("fail", domains[0], strictest)
