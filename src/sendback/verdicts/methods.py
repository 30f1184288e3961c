"""SPF, DKIM and DMARC of one mail, one after the other. Synchronous: it blocks on DNS.

Each method has a result of its own, independent of the others. DMARC looks up the author's domain,
the others look up names that the sender has chosen: these cannot use up DMARC's share of the time.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from sendback.net.resolver import Resolver
from sendback.receipt.verdicts import UNKNOWN, DkimResult, DmarcResult, SpfResult, Verdicts
from sendback.service.rules.content import MailToCheck
from sendback.verdicts.look_ups import Budget

Method = Literal["dkim", "spf", "dmarc"]
Result = SpfResult | tuple[DkimResult, ...] | DmarcResult
Results = Mapping[Method, Result]

# In the order of execution, with the part of the remaining time that each may use.
_SHARES: dict[Method, float] = {"dkim": 0.4, "spf": 0.6, "dmarc": 1.0}
METHODS = tuple(_SHARES)

# Called with a method, its result, and the lines that explain it.
Report = Callable[[Method, Result, list[str]], None]


def authenticate(
    mail: MailToCheck, resolver: Resolver, seconds: float, known: Results, report: Report
) -> None:
    """Run the methods that are not known yet, and report each result when it is there.

    `seconds` is for the lookups of all of them together. Never raises.
    """
    results = dict(known)
    for method in METHODS:
        if method in results:
            continue
        budget = Budget(resolver, seconds * _SHARES[method])
        notes: list[str] = []
        try:
            results[method] = _run(method, mail, results, budget, notes.append)
        except Exception as error:  # noqa: BLE001 - the other methods go on
            notes.append(f"{method} broke: {error!r}")
            results[method] = failed(method, mail)
        seconds -= budget.used
        report(method, results[method], notes)


def failed(method: Method, mail: MailToCheck) -> Result:
    """Return the result of a method that did not complete."""
    match method:
        case "spf":
            return SpfResult("temperror", mail.sender_domain)
        case "dkim":
            return UNKNOWN.dkim
        case "dmarc":
            return UNKNOWN.dmarc


def as_verdicts(results: Results, mail: MailToCheck) -> Verdicts:
    """Return the verdicts of the three methods; a method without a result has failed."""
    spf, dkim, dmarc = (
        results.get(method, failed(method, mail)) for method in ("spf", "dkim", "dmarc")
    )
    if isinstance(spf, SpfResult) and isinstance(dkim, tuple) and isinstance(dmarc, DmarcResult):
        return Verdicts(spf=spf, dkim=dkim, dmarc=dmarc)
    raise TypeError("a result of another method")


def _run(
    method: Method,
    mail: MailToCheck,
    results: Results,
    budget: Budget,
    note: Callable[[str], None],
) -> Result:
    # Each method imports its own libraries: a broken one affects only its own result.
    match method:
        case "dkim":
            from sendback.verdicts.dkim import check_dkim  # noqa: PLC0415

            return check_dkim(mail, budget, note)
        case "spf":
            from sendback.verdicts.spf import check_spf  # noqa: PLC0415

            return check_spf(mail, budget, note)
        case "dmarc":
            return _check_dmarc(mail, as_verdicts(results, mail), budget)


def _check_dmarc(mail: MailToCheck, known: Verdicts, budget: Budget) -> DmarcResult:
    from sendback.verdicts.dmarc import check_dmarc  # noqa: PLC0415

    found = check_dmarc(mail.content.header, known.spf, known.dkim, budget)
    if found.result != "fail" or known.dkim != UNKNOWN.dkim:
        return found
    # DKIM was aborted: one of the signatures may be the author's.
    dkim = (DkimResult("temperror", found.domain),)
    return check_dmarc(mail.content.header, known.spf, dkim, budget)
