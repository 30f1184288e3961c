"""Checksums of objects: those of S3's `x-amz-checksum-…` headers. Pure.

CRC32, SHA-1 and SHA-256 are the standard library's. It has no CRC32C and no CRC64NVME, the default
of AWS's newest tools; they are computed here by a table, at some 5 MB/s.
"""

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

PREFIX = "x-amz-checksum-"


class Running(Protocol):
    """A checksum that is being computed."""

    def update(self, octets: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, octets: bytes, /) -> None:
        self._value = zlib.crc32(octets, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _ReflectedCrc:
    """A CRC of reflected bits, with all bits inverted before and after."""

    def __init__(self, polynomial: int, octets: int) -> None:
        self._table = _table(polynomial)
        self._octets = octets
        self._mask = (1 << 8 * octets) - 1
        self._value = self._mask

    def update(self, octets: bytes, /) -> None:
        value, table = self._value, self._table
        for octet in octets:
            value = table[(value ^ octet) & 0xFF] ^ (value >> 8)
        self._value = value

    def digest(self) -> bytes:
        return (self._value ^ self._mask).to_bytes(self._octets, "big")


@lru_cache
def _table(polynomial: int) -> tuple[int, ...]:
    entries = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)  # noqa: PLW2901
        entries.append(value)
    return tuple(entries)


def _sha1() -> Running:
    return hashlib.sha1(usedforsecurity=False)


# The algorithm in header names, and in the members of the API in upper case.
ALGORITHMS: Mapping[str, Callable[[], Running]] = {
    "crc32": _Crc32,
    "crc32c": lambda: _ReflectedCrc(0x82F63B78, 4),  # RFC 3720 §12.1
    "crc64nvme": lambda: _ReflectedCrc(0x9A6C9329AC4BC9B5, 8),  # NVM Express NVM Command Set
    "sha1": _sha1,
    "sha256": hashlib.sha256,
}


def text_of(checksum: Running) -> str:
    """Return the text of a checksum, as in headers."""
    return base64.b64encode(checksum.digest()).decode("ascii")
