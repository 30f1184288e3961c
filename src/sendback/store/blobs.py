"""Bodies too large for a row: files in a directory, synced before the commit that names them.

What no row names any more is removed by a sweep, which leaves young files alone: their commit may
still be on its way.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO


class Blobs:
    """The blob store in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._kept = directory / "blobs"
        self.spool_directory = directory / "spool"
        self._kept.mkdir(parents=True, exist_ok=True)
        self.spool_directory.mkdir(parents=True, exist_ok=True)

    def keep(self, name: str, body: IO[bytes], prefix: bytes = b"") -> None:
        """Write `prefix` and the rest of `body` to `name`, durably. Raise `OSError`."""
        partial = self._kept / f".{name}.partial"
        try:
            with partial.open("wb") as file:
                file.write(prefix)
                while chunk := body.read(1 << 20):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(self._kept / name)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        self._sync_directory()

    def path(self, name: str) -> Path:
        """Return the file of a body. It may be gone."""
        return self._kept / name

    def read(self, name: str) -> bytes:
        """Return a whole body. Raises `FileNotFoundError`."""
        return self.path(name).read_bytes()

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self._kept / name).unlink(missing_ok=True)

    def older_than(self, unix_time: float) -> Iterator[str]:
        """The names of files that were last written before then."""
        for path in self._kept.iterdir():
            if path.stat().st_mtime < unix_time:
                yield path.name

    def _sync_directory(self) -> None:
        descriptor = os.open(self._kept, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
