"""Background work that lets clients go first: one piece in each round of the event loop."""

import asyncio
from collections import deque


class Rounds:
    """Lets background work go on, a piece at a time.

    When a group of transactions ends, the work on fifty messages could go on at once. Done in one
    round of the event loop, it would hold up every client for as long as it takes; a client needs
    some ten rounds for a mail. Here one piece is done, then the loop looks at its sockets.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_taken = False  # this round has its piece of work

    async def next(self) -> None:
        """Return when a piece of work may be done; at once if none was done in this round."""
        loop = asyncio.get_running_loop()
        if not self._is_taken:
            self._is_taken = True
            loop.call_soon(self._begin)
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _begin(self) -> None:
        """Begin a round: whoever has waited longest goes on."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # or its task was cancelled
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._begin)
                return
        self._is_taken = False
