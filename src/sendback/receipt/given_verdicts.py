"""Verdicts that a test gives with a message, in place of the checks (setting `test_verdicts`).

They come with MAIL (`XSENDBACK-VERDICTS=spf:FAIL,dmarc:FAIL,dmarc-policy:reject`) or from the
control API, and are stored in the envelope. No check is run for such a message: what is not given
is as for a domain without DNS records (GRAY) and a server without scanners (DISABLED). Pure.
"""

from collections.abc import Mapping

from sendback.mail.authors import read_authors
from sendback.mail.envelope import Envelope, GivenVerdicts
from sendback.mail.printable import printable
from sendback.receipt.verdicts import DkimResult, DmarcResult, SpfResult, Verdict, Verdicts

MAX_GIVEN = 200  # octets of the parameter's value; the longest valid one has 144

_CHECKS = ("PASS", "FAIL", "GRAY", "PROCESSING_FAILED")
_SCANS = (*_CHECKS, "DISABLED")
_POLICIES = ("none", "quarantine", "reject")
# What each member may be; its attribute has the name with an underscore.
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "spf": _CHECKS,
    "dkim": _CHECKS,
    "dmarc": _CHECKS,
    "spam": _SCANS,
    "virus": _SCANS,
    "dmarc-policy": _POLICIES,
}
_ALIASES = {"dmarcPolicy": "dmarc-policy", "dmarc_policy": "dmarc-policy"}
# The results (RFC 8601) that stand for a verdict; `receipt.verdicts` has the way back.
_RESULTS = {"PASS": "pass", "FAIL": "fail", "GRAY": "none", "PROCESSING_FAILED": "temperror"}


class GivenVerdictsError(ValueError):
    """Invalid verdicts. `str` says what is allowed, in one line of printable ASCII."""


def parse_given(text: str) -> GivenVerdicts:
    """Return the verdicts of `spf:FAIL,dmarc-policy:reject`. Raise `GivenVerdictsError`."""
    if len(text) > MAX_GIVEN:
        raise GivenVerdictsError(f"the verdicts have more than {MAX_GIVEN} characters")
    pairs = [item.partition(":") for item in text.split(",")]
    if any(not colon for _, colon, _ in pairs):
        raise GivenVerdictsError("verdicts are of the form spf:FAIL,dkim:PASS")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise GivenVerdictsError("a verdict is given twice")
    return given_verdicts({name: value for name, _, value in pairs})


def given_verdicts(members: Mapping[str, object]) -> GivenVerdicts:
    """Return the verdicts of `{"spf": "FAIL", "dmarcPolicy": "reject"}`.

    Raise `GivenVerdictsError`.
    """
    given = GivenVerdicts(
        **{_attribute(name): _checked(name, value) for name, value in members.items()}
    )
    if given.dmarc_policy and given.dmarc != Verdict.FAIL:
        raise GivenVerdictsError("dmarc-policy is reported with dmarc:FAIL only")
    return given


def _attribute(name: str) -> str:
    name = _ALIASES.get(name, name)
    if name not in _ALLOWED:
        shown = printable(name).encode("ascii", "replace").decode()
        raise GivenVerdictsError(f"'{shown}' is no verdict, only {', '.join(_ALLOWED)}")
    return name.replace("-", "_")


def _checked(name: str, value: object) -> str:
    name = _ALIASES.get(name, name)
    allowed = _ALLOWED[name]
    if value not in allowed:
        raise GivenVerdictsError(f"{name} must be one of {', '.join(allowed)}")
    return str(value)


def results_of(given: GivenVerdicts, envelope: Envelope, header: bytes) -> Verdicts:
    """Return the results that have these verdicts, for the domains that the mail names.

    `header` is the mail's own, without trace fields. A DMARC failure without a policy is that of
    a domain that publishes `p=none`.
    """
    reverse_path = envelope.reverse_path.address
    authors = read_authors(header).domains
    author = authors[0] if authors else ""
    dkim = _RESULTS[given.dkim or "GRAY"]
    dmarc = _RESULTS[given.dmarc or "GRAY"]
    return Verdicts(
        spf=SpfResult(
            _RESULTS[given.spf or "GRAY"],
            reverse_path.domain if reverse_path else envelope.client.helo,
        ),
        dkim=() if dkim == "none" else (DkimResult(dkim, author),),
        dmarc=DmarcResult(dmarc, author, _policy(given)),
        spam=Verdict(given.spam or "DISABLED"),
        virus=Verdict(given.virus or "DISABLED"),
    )


def _policy(given: GivenVerdicts) -> str | None:
    return given.dmarc_policy or ("none" if given.dmarc == Verdict.FAIL else None)
