"""Injected faults of SMTP sessions: what `Faults` decides, as SMTP replies.

Used for clients' connections and for mail that is injected without one.
"""

from enum import Enum, auto

from sendback.faults.model import NULL_SENDER, FaultEvent, FaultRule, Point
from sendback.mail.address import Address
from sendback.service.faults.faults import Faults
from sendback.smtp.decisions import Decisions, Receivers
from sendback.smtp.machine import SmtpMachine
from sendback.smtp.replies import Reply, make_reply

# The points of the commands that the machine asks about (`events.CommandReceived`).
COMMAND_POINTS = {"MAIL": Point.MAIL, "DATA": Point.DATA}
_NO_VERBS: frozenset[str] = frozenset()


class Drop(Enum):
    """The connection is closed without a reply."""

    CONNECTION = auto()


class SmtpFaults:
    """Decides which replies of the server are faults."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    @property
    def verbs(self) -> frozenset[str]:
        """The commands, of MAIL and DATA, that may have to be refused."""
        points = self._faults.points
        if not points:
            return _NO_VERBS
        return frozenset(verb for verb, point in COMMAND_POINTS.items() if point in points)

    def may_inject(self, point: Point) -> bool:
        """Return whether `decide` has to be called at this point."""
        points = self._faults.points
        return bool(points) and point in points  # hashing a member of an Enum costs a call

    async def decide_client(self, decisions: Decisions, client_ip: str) -> Reply | Drop | None:
        """Return what replaces the greeting, a refusal of the client or a fault; or None."""
        refusal = await decisions.client(client_ip)
        if refusal is not None:
            return refusal
        return _outcome(await self._faults.inject(FaultEvent(Point.CONNECT, client_ip)))

    async def decide(
        self,
        point: Point,
        client_ip: str,
        machine: SmtpMachine[Receivers],
        recipient: Address | None = None,
    ) -> Reply | Drop | None:
        """Return what replaces the reply of the server, or None.

        `recipient` is that of RCPT. At other points all recipients of the transaction count.
        """
        if not self.may_inject(point):
            return None
        recipients = [entry.address for entry in machine.recipients]
        path = machine.reverse_path
        address = None if path is None else path.address
        event = FaultEvent(
            point,
            client_ip,
            sender=NULL_SENDER if address is None else address.key,
            recipients=tuple(to.key for to in ([recipient] if recipient else recipients)),
        )
        return _outcome(await self._faults.inject(event))


def _outcome(rule: FaultRule | None) -> Reply | Drop | None:
    if rule is None:
        return None
    if rule.reply is not None:
        return make_reply(rule.reply.code, rule.reply.status, rule.reply.text)
    return Drop.CONNECTION if rule.drop else None
