"""Sessions of browsers whose users have signed in."""

from sendback.service.access.caller import Caller


class Sessions:
    """Finds who has signed in."""

    def __init__(self) -> None:
        self._known: dict[str, Caller] = {}

    async def find(self, session: str) -> Caller | None:
        """Return the user of a session, or None for one that has ended."""
        return self._known.get(session)
