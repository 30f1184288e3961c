"""The record of who changed what in the console."""

import logging
import uuid
from collections.abc import Sequence

from sendback.clock import Clock, to_milliseconds
from sendback.service.access.caller import Caller
from sendback.store.access.audit import AddAuditLine, AuditLine, ListAuditLines
from sendback.store.engine.store import Store

log = logging.getLogger(__name__)

_MAX_TEXT, _MAX_PATH, _MAX_NAME = 1000, 500, 64


class Audit:
    """The lines of all accounts."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def record(self, caller: Caller, client: str, path: str, text: str) -> None:
        """Record a change. It is made already, so a line that cannot be written is logged."""
        now = self._clock.now()
        line = AuditLine(
            f"{to_milliseconds(now):012x}-{uuid.uuid4().hex}",
            caller.account_id,
            caller.user_name[:_MAX_NAME],
            client[:_MAX_NAME],
            _text(path, _MAX_PATH),
            _text(text, _MAX_TEXT),
            now,
        )
        try:
            await self._store.write(AddAuditLine(line))
        except Exception:
            log.exception(
                "audit_line_lost account=%s user=%s path=%s text=%s",
                line.account_id, line.user_name, line.path, line.text,
            )  # fmt: skip

    async def lines(self, account_id: str | None, before: str, limit: int) -> Sequence[AuditLine]:
        """Return lines of an account, or of all (None), the newest first, older than `before`."""
        return await self._store.read(ListAuditLines(account_id, before, limit))


def _text(text: str, most: int) -> str:
    return text[:most].replace("\0", "\N{REPLACEMENT CHARACTER}")
