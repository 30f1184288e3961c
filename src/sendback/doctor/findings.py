"""What a check finds."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """What a finding means."""

    GOOD = "good"
    ADVICE = "advice"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked, what was found, and what to do about it, if anything."""

    check: str
    verdict: Severity
    found: str
    advice: str = ""


Findings = list[Finding]
