"""Background work with a lower priority than clients: one piece in each round of the event loop."""

import asyncio
from collections import deque


class Rounds:
    """Runs background work one piece at a time.

    When a group of transactions ends, the processing of fifty messages could continue at once. In
    one round of the event loop it would delay every client; a client needs some ten rounds for a
    mail. Here one piece is done, then the loop serves its sockets.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_taken = False  # this round has its piece of work

    async def next(self) -> None:
        """Wait until a piece of work may be done: at once if none was done in this round."""
        loop = asyncio.get_running_loop()
        if not self._is_taken:
            self._is_taken = True
            loop.call_soon(self._begin)
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _begin(self) -> None:
        """Begin a round: the one that has waited longest continues."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # or its task was cancelled
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._begin)
                return
        self._is_taken = False
