"""How often a client may make the server write a log line: a flood must not fill the disk.

Pure: no I/O, no clock. Moments are seconds on a scale that never goes backwards.
"""

_LINES_A_SECOND = 10


class LogLimit:
    """Allows a line a second for each source, and ten a second in all."""

    def __init__(self) -> None:
        self._second = -1
        self._sources: set[str] = set()
        self._suppressed = 0

    def allow(self, source: str, now: float) -> int | None:
        """Return how many lines were suppressed since the last one; None: suppress this one."""
        if int(now) != self._second:
            self._second = int(now)
            self._sources.clear()
        if source in self._sources or len(self._sources) >= _LINES_A_SECOND:
            self._suppressed += 1
            return None
        self._sources.add(source)
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
