"""The classification of refusals: message or domain, and the delay of greylisting. Pure."""

import re
from datetime import timedelta

from sendback.delivery.transports import Fault
from sendback.smtp_client.conversation import Stage, StageReply

# RFC 3463 §3: about the address, the mailbox, the content: all about this one message.
_OF_MESSAGE = frozenset({"1", "2", "5", "6"})
_TOO_BIG = "3.4"
_ENHANCED = re.compile(r"[245]\.(\d{1,3})\.(\d{1,3})\b", re.ASCII)
_GREYLISTED = re.compile(
    r"gr[ea]y-?\s?list|temporarily (?:deferred|blocked|unavailable.{0,200}try)"
    r"|try again (?:later|in)"
    r"|please retry|come back (?:later|in)|not yet (?:authori[sz]ed|known)",
    re.IGNORECASE,
)
_NAMED_WAIT = re.compile(
    r"\b(\d{1,5})\s{0,20}(seconds?|secs?|s|minutes?|mins?|m)\b", re.IGNORECASE | re.ASCII
)
_LOOKED_AT = 2000  # characters of a reply's text; servers that greylist say so in one line
_USUAL_WAIT = timedelta(minutes=5)  # postgrey's default, and of most of its kind
_SHORTEST_WAIT = timedelta(seconds=30)
_LONGEST_WAIT = timedelta(minutes=30)
_MAX_GREYLISTED_ATTEMPTS = 5


def fault_of(refusal: StageReply) -> Fault:
    """Return what the reply says about the domain.

    A refusal before RCPT is not about a recipient; a policy (X.7.X) or a failing system (X.3.X,
    X.4.X) is not about this message either. A single such reply may be a coincidence.
    """
    reply = refusal.reply
    if reply.is_positive:
        return Fault.MESSAGE
    if refusal.stage is Stage.MAIL or reply.ends_session:
        return Fault.UNCLEAR
    found = _ENHANCED.match(reply.lines[0])
    if found is None or found[1] in _OF_MESSAGE or f"{found[1]}.{found[2]}" == _TOO_BIG:
        return Fault.MESSAGE
    return Fault.MESSAGE if greylist_wait(refusal) else Fault.UNCLEAR


def greylist_wait(refusal: StageReply, attempts: int = 0) -> timedelta | None:
    """Return the delay that a greylisting server requires, None for any other reply.

    Most such servers name the delay. From the sixth attempt on, treat the reply as an ordinary
    4xx.
    """
    reply = refusal.reply
    if reply.code // 100 != 4 or refusal.stage in {Stage.MAIL, Stage.CONTENT}:  # noqa: PLR2004
        return None
    text = reply.beginning(_LOOKED_AT)[:_LOOKED_AT]
    if attempts >= _MAX_GREYLISTED_ATTEMPTS or not _GREYLISTED.search(text):
        return None
    named = _NAMED_WAIT.search(text)
    if named is None:
        return _USUAL_WAIT
    unit = timedelta(minutes=1) if named[2].lower().startswith("m") else timedelta(seconds=1)
    return min(max(int(named[1]) * unit, _SHORTEST_WAIT), _LONGEST_WAIT)
