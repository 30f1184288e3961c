"""Bytes that count how often they are read or copied."""

from typing import Any


class CountedOctets(bytes):
    """Bytes whose slices, joins and searches add their length to `touched`."""

    touched = 0

    @classmethod
    def reset(cls) -> None:
        cls.touched = 0

    @classmethod
    def counted(cls, octets: bytes, touched: int) -> "CountedOctets":
        cls.touched += touched
        return cls(octets)

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return self.counted(found, len(found)) if isinstance(found, bytes) else found

    def __add__(self, other: Any) -> "CountedOctets":
        return self.counted(bytes(self) + bytes(other), len(self) + len(other))

    def __radd__(self, other: Any) -> "CountedOctets":
        return self.counted(bytes(other) + bytes(self), len(self) + len(other))

    def __contains__(self, key: Any) -> bool:
        type(self).touched += len(self)
        return super().__contains__(key)

    def find(self, *arguments: Any) -> int:
        found = super().find(*arguments)
        start = arguments[1] if len(arguments) > 1 else 0
        type(self).touched += (found if found >= 0 else len(self)) - start + 1
        return found

    def count(self, *arguments: Any) -> int:
        type(self).touched += len(self)
        return super().count(*arguments)

    def replace(self, *arguments: Any) -> "CountedOctets":  # type: ignore[override]
        return self.counted(super().replace(*arguments), len(self))

    def startswith(self, *arguments: Any) -> bool:
        type(self).touched += 5
        return super().startswith(*arguments)

    def endswith(self, *arguments: Any) -> bool:
        type(self).touched += 5
        return super().endswith(*arguments)

    def decode(self, *arguments: Any) -> str:  # type: ignore[override]
        type(self).touched += len(self)
        return super().decode(*arguments)
