"""Verdicts on a message. SES developer guide, "Notification contents": spfVerdict and the others.

`SpfResult`, `DkimResult` and `DmarcResult` have the results in the terms of the standards
(RFC 8601); the tables below map them to the verdicts of SES.
"""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The status of a check, as SES reports it."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    GRAY = "GRAY"
    PROCESSING_FAILED = "PROCESSING_FAILED"
    DISABLED = "DISABLED"


# RFC 7208 §2.6. A softfail is a domain's own "not quite": neither PASS nor FAIL.
SPF_VERDICTS = {
    "pass": Verdict.PASS,
    "fail": Verdict.FAIL,
    "softfail": Verdict.GRAY,
    "neutral": Verdict.GRAY,
    "none": Verdict.GRAY,
    "temperror": Verdict.PROCESSING_FAILED,
    "permerror": Verdict.PROCESSING_FAILED,
}
# RFC 8601 §2.7.1. A signature that cannot be read is a signature that failed; `neutral` is one
# that failed while its domain is testing (RFC 6376 §3.6.1, t=y).
DKIM_VERDICTS = {
    "pass": Verdict.PASS,
    "fail": Verdict.FAIL,
    "permerror": Verdict.FAIL,
    "neutral": Verdict.GRAY,
    "none": Verdict.GRAY,
    "temperror": Verdict.PROCESSING_FAILED,
}
# RFC 7489 §11.2.
DMARC_VERDICTS = {
    "pass": Verdict.PASS,
    "fail": Verdict.FAIL,
    "none": Verdict.GRAY,
    "temperror": Verdict.PROCESSING_FAILED,
    "permerror": Verdict.GRAY,
}
# With several signatures the best result counts.
_DKIM_ORDER = ("pass", "temperror", "fail", "permerror", "neutral", "none")


@dataclass(frozen=True, slots=True)
class SpfResult:
    """RFC 7208: the result, and the checked domain (of MAIL FROM or HELO)."""

    result: str = "none"
    domain: str = ""


@dataclass(frozen=True, slots=True)
class DkimResult:
    """RFC 6376: the result of one signature, its `d=` and `s=`."""

    result: str = "none"
    domain: str = ""
    selector: str = ""


@dataclass(frozen=True, slots=True)
class DmarcResult:
    """RFC 7489: the result, the domain of `From:`, and the policy that its owner publishes."""

    result: str = "none"
    domain: str = ""
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Verdicts:
    """All results for a message. `spam` and `virus` are for rules that scan."""

    spf: SpfResult = field(default_factory=SpfResult)
    dkim: tuple[DkimResult, ...] = ()
    dmarc: DmarcResult = field(default_factory=DmarcResult)
    spam: Verdict = Verdict.DISABLED
    virus: Verdict = Verdict.DISABLED
    authentication_disabled: bool = False

    @property
    def best_dkim(self) -> str:
        results = {signature.result for signature in self.dkim}
        return next((result for result in _DKIM_ORDER if result in results), "none")

    def statuses(self, *, scanned: bool) -> dict[str, Verdict]:
        """Return the verdicts by name (notifications); `scanned` is the rule's ScanEnabled."""
        off = self.authentication_disabled
        return {
            "spamVerdict": self.spam if scanned else Verdict.DISABLED,
            "virusVerdict": self.virus if scanned else Verdict.DISABLED,
            "spfVerdict": Verdict.DISABLED if off else SPF_VERDICTS[self.spf.result],
            "dkimVerdict": Verdict.DISABLED if off else DKIM_VERDICTS[self.best_dkim],
            "dmarcVerdict": Verdict.DISABLED if off else DMARC_VERDICTS[self.dmarc.result],
        }

    def to_json(self) -> str:
        """Return all fields as JSON, for `verdicts_from_json`."""
        return json.dumps(asdict(self), separators=(",", ":"))


# The results for a message whose checks failed.
UNKNOWN = Verdicts(
    spf=SpfResult("temperror"),
    dkim=(DkimResult("temperror"),),
    dmarc=DmarcResult("temperror"),
    spam=Verdict.PROCESSING_FAILED,
    virus=Verdict.PROCESSING_FAILED,
)


def verdicts_from_json(text: str) -> Verdicts:
    """Return the verdicts in a text from `Verdicts.to_json`."""
    value: dict[str, Any] = json.loads(text)
    return Verdicts(
        spf=SpfResult(**value["spf"]),
        dkim=tuple(DkimResult(**item) for item in value["dkim"]),
        dmarc=DmarcResult(**value["dmarc"]),
        spam=Verdict(value["spam"]),
        virus=Verdict(value["virus"]),
        authentication_disabled=value["authentication_disabled"],
    )
