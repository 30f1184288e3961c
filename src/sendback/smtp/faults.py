"""Injected faults of SMTP sessions: what `Faults` decides, as SMTP replies."""

from enum import Enum, auto

from sendback.faults.model import NULL_SENDER, FaultEvent, FaultRule, Point
from sendback.mail.address import Address
from sendback.mail.envelope import ReversePath
from sendback.service.faults.faults import Faults
from sendback.smtp.replies import Reply, make_reply

_VERBS = {Point.MAIL: "MAIL", Point.DATA: "DATA"}


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
        return frozenset(verb for point, verb in _VERBS.items() if point in points)

    def may_inject(self, point: Point) -> bool:
        """Return whether `inject` has to be called at this point."""
        return point in self._faults.points

    async def at_connect(self, client_ip: str) -> Reply | Drop | None:
        """Return what replaces the greeting, or None."""
        return _outcome(await self._faults.inject(FaultEvent(Point.CONNECT, client_ip)))

    async def inject(
        self,
        point: Point,
        client_ip: str,
        sender: ReversePath | None,
        recipients: list[Address],
    ) -> Reply | Drop | None:
        """Return what replaces the reply of the server, or None."""
        address = None if sender is None else sender.address
        event = FaultEvent(
            point,
            client_ip,
            sender=NULL_SENDER if address is None else address.key,
            recipients=tuple(recipient.key for recipient in recipients),
        )
        return _outcome(await self._faults.inject(event))


def _outcome(rule: FaultRule | None) -> Reply | Drop | None:
    if rule is None:
        return None
    if rule.reply is not None:
        return make_reply(rule.reply.code, rule.reply.status, rule.reply.text)
    return Drop.CONNECTION if rule.drop else None
