"""Bodies too large for a row: files in a directory, synced before the commit that names them.

What no row names any more is removed by a sweep, which leaves young files alone: their commit may
still be on its way.
"""

import os
from collections.abc import Generator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from sendback.store.engine.errors import StoreUnavailableError


class Blobs:
    """The blob store in `directory`."""

    def __init__(self, directory: Path) -> None:
        """Raises `StoreUnavailableError`."""
        self._kept = directory / "blobs"
        self.spool_directory = directory / "spool"
        for folder in (self._kept, self.spool_directory):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                text = f"the directory {folder} cannot be made: {error.strerror}"
                raise StoreUnavailableError(text) from error

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

    def has(self, name: str) -> bool:
        """Whether there is a blob of that name."""
        return (self._kept / name).is_file()

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self._kept / name).unlink(missing_ok=True)

    def older_than(self, unix_time: float) -> Generator[str, None, None]:
        """The names of files that were last written before then, also of those left unfinished."""
        with os.scandir(self._kept) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.stat().st_mtime < unix_time:
                        yield entry.name

    def empty_spool(self, unix_time: float) -> None:
        """Remove what a crash left in the spool before then: files there have no names for long."""
        for path in self.spool_directory.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < unix_time:
                    path.unlink()

    def _sync_directory(self) -> None:
        descriptor = os.open(self._kept, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
