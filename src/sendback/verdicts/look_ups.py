"""The DNS lookups of one message: within a time budget, for valid names only."""

import re
from time import monotonic
from typing import Any

from sendback.net.dns_answers import DnsFailedError
from sendback.net.resolver import Resolver

# RFC 1035 §2.3.4. A backslash would be read as the beginning of an escape; RFC 8616 §4 leaves
# names that are not ASCII out.
_LABEL = re.compile(r"[!-\[\]-~]{1,63}")
_MAX_NAME_OCTETS = 253


class Budget:
    """The remaining time for the lookups of one message. Only waiting for them counts."""

    def __init__(self, resolver: Resolver, seconds: float) -> None:
        self.resolver = resolver
        self.used = 0.0
        self._seconds = seconds

    @property
    def left(self) -> float:
        """Seconds; 0 or negative when the budget is used up."""
        return self._seconds - self.used

    def query(self, name: str, kind: str) -> list[Any]:
        """Return the records. Raises `DnsFailedError`."""
        if self.left <= 0:
            raise DnsFailedError("the time for look-ups is used up")
        started = monotonic()
        try:
            return self.resolver.query(name, kind, self.left)
        finally:
            self.used += monotonic() - started

    def texts(self, name: str) -> list[bytes]:
        """Return the TXT records, each with its strings joined. Raises `DnsFailedError`."""
        return [b"".join(record.strings) for record in self.query(name, "TXT")]


def is_dns_name(name: str) -> bool:
    """Return whether the name, without a final dot, is valid in DNS. No other name is looked up."""
    return len(name) <= _MAX_NAME_OCTETS and all(map(_LABEL.fullmatch, name.split(".")))
