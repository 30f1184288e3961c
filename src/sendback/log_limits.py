"""A rate limit on log lines that clients can cause. Pure: the caller passes the time."""


class LogLimiter:
    """Allows one line per second for each key, such as a network, and some lines in all."""

    def __init__(self, per_second: int = 20) -> None:
        """`per_second` is the number of lines in all."""
        self._per_second = per_second
        self._second = -1
        self._keys: set[str] = set()
        self._lines = 0
        self._left_out = 0

    def check(self, key: str, now: float) -> str | None:
        """Return the suffix of the line, or None when the line must not be logged.

        The suffix is the number of lines that were left out before, or an empty text.
        """
        if int(now) != self._second:
            self._second = int(now)
            self._keys.clear()
            self._lines = 0
        if key in self._keys or self._lines >= self._per_second:
            self._left_out += 1
            return None
        self._keys.add(key)
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        return f" ({left_out} lines like this were left out)" if left_out else ""
