"""The IDs of messages and requests. All other code treats them as opaque.

Received messages: as in SES, 40 characters of `0-9a-v` (200 bits in base32hex): 48 bits of Unix
milliseconds, then 152 random bits, so that they sort by time and need no coordination.
Outbound messages: `0100`, 12 hex digits of Unix milliseconds, `-`, a UUID, `-000000`.
"""

import os
import re
import socket
from datetime import datetime
from typing import Protocol

from sendback.clock import to_milliseconds


def process_name() -> str:
    """Return a name for this process that no other one has, on any machine or at any time.

    The host name, the process ID and random digits: `mx1:4711:9f86d081`.
    """
    host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)[:32]
    return f"{host}:{os.getpid()}:{os.urandom(4).hex()}"


class IdMaker(Protocol):
    """Makes the IDs of messages and requests; tests replace it to fix them."""

    def received_message(self, now: datetime) -> str: ...

    def outbound_message(self, now: datetime) -> str: ...

    def request(self) -> str: ...

    def boundary(self) -> str: ...


_ALPHABET = "0123456789abcdefghijklmnopqrstuv"  # base32hex (RFC 4648 §7), in lower case
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
# The digit of each octet: each digit has eight octets, so that random octets are random digits.
_DIGITS = (_ALPHABET * 8).encode()
_VARIANTS = "89ab" * 4  # RFC 9562 §4.1
_PIECE = 32
_PIECES = 128


_forks = 0  # how many times this process was forked from another since this was imported


def _count_fork() -> None:
    global _forks  # noqa: PLW0603 - it belongs to the process
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class RandomIds:
    """IDs with random bits from the system. Thread-safe.

    The bits are read in advance, 4 KiB at a time: a system call for each ID hands the interpreter
    to another thread in the middle of a request (SendBounce makes three IDs; without these calls
    it was a fifth faster).
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._forks = -1

    def received_message(self, now: datetime) -> str:
        random = self._random()
        # 48 bits of time and two random bits are ten digits, in pairs of ten bits.
        bits = to_milliseconds(now) << 2 | random[30] & 3
        return (
            _PAIRS[bits >> 40] + _PAIRS[bits >> 30 & 1023] + _PAIRS[bits >> 20 & 1023]
            + _PAIRS[bits >> 10 & 1023] + _PAIRS[bits & 1023]
            + random[:30].translate(_DIGITS).decode("ascii")
        )  # fmt: skip

    def outbound_message(self, now: datetime) -> str:
        return f"0100{to_milliseconds(now):012x}-{self.request()}-000000"

    def request(self) -> str:
        """Return a UUID of version 4."""
        text = self._random()[:16].hex()
        variant = _VARIANTS[int(text[16], 16)]
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"

    def boundary(self) -> str:
        """Return a MIME boundary: 128 random bits, so that no mail can contain it on purpose."""
        return f"=_{self._random()[:16].hex()}"

    def _random(self) -> bytes:
        """Return 32 random octets that are never returned again, not even in a forked process."""
        if self._forks != _forks:
            self._refill()
        while True:
            try:
                return self._pieces.pop()  # atomic
            except IndexError:
                self._refill()

    def _refill(self) -> None:
        octets = os.urandom(_PIECES * _PIECE)
        self._pieces = [octets[at : at + _PIECE] for at in range(0, len(octets), _PIECE)]
        self._forks = _forks
