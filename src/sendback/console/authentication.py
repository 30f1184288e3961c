"""The results of SPF, DKIM and DMARC in words. Pure."""

from dataclasses import dataclass

from sendback.receipt.verdicts import Verdicts

_SPF = {
    "pass": "The domain lets this client send its mail.",
    "fail": "The domain says that this client may not send its mail.",
    "softfail": "The domain says that this client probably may not send its mail.",
    "neutral": "The domain says nothing about this client.",
    "none": "The domain publishes no SPF record.",
    "temperror": "DNS did not answer; the sender may try again.",
    "permerror": "The SPF record of the domain cannot be read.",
}
_DKIM = {
    "pass": "The signature is valid: the mail was not changed on its way.",
    "fail": "The signature does not fit the mail: it was changed, or forged.",
    "neutral": "The signature failed while its domain is testing.",
    "none": "The mail has no signature.",
    "temperror": "The key could not be fetched from DNS.",
    "permerror": "The signature or its key cannot be read.",
}
_DMARC = {
    "pass": "SPF or DKIM passed for the domain in From.",
    "fail": "Neither SPF nor DKIM passed for the domain in From.",
    "none": "The domain in From publishes no DMARC policy.",
    "temperror": "DNS did not answer.",
    "permerror": "The DMARC record cannot be read.",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """A method, its result, the domain that it is about, and what that means."""

    method: str
    result: str
    domain: str
    text: str


def explained(verdicts: Verdicts) -> list[Explanation]:
    """Return the results in words."""
    if verdicts.authentication_disabled:
        return [Explanation("SPF, DKIM, DMARC", "disabled", "", "The setting dns is off.")]
    found = [
        Explanation("SPF", verdicts.spf.result, verdicts.spf.domain, _SPF[verdicts.spf.result])
    ]
    for signature in verdicts.dkim[:10]:
        about = f"{signature.domain}, selector {signature.selector}"
        found.append(Explanation("DKIM", signature.result, about, _DKIM[signature.result]))
    if not verdicts.dkim:
        found.append(Explanation("DKIM", "none", "", _DKIM["none"]))
    dmarc = verdicts.dmarc
    policy = f" Its policy is {dmarc.policy}." if dmarc.policy else ""
    return [*found, Explanation("DMARC", dmarc.result, dmarc.domain, _DMARC[dmarc.result] + policy)]
