"""Bodies too large for a row: files in a directory, synced before the commit that names them.

A sweep removes the files that no row names. It ignores recent files: the transaction that names
them may not be committed yet.
"""

import os
from collections.abc import Generator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from sendback.store.engine.errors import StoreUnavailableError


class Blobs:
    """The bodies in `directory/blobs`; `directory/spool` has messages while they are received."""

    def __init__(self, directory: Path) -> None:
        """Create the directories. Raises `StoreUnavailableError`."""
        self._kept = directory / "blobs"
        self.spool_directory = directory / "spool"
        for folder in (self._kept, self.spool_directory):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                text = f"the directory {folder} cannot be made: {error.strerror}"
                raise StoreUnavailableError(text) from error

    def keep(self, name: str, body: IO[bytes], prefix: bytes = b"") -> None:
        """Copy `prefix` and the rest of `body` to the blob `name`, and sync it to the disk.

        The copy is renamed to `name` once it is complete. Raises `OSError`; no file is left then.
        """
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
        """Return the path of a body. The file need not exist."""
        return self._kept / name

    def read(self, name: str) -> bytes:
        """Return a whole body. Raises `FileNotFoundError`."""
        return self.path(name).read_bytes()

    def has(self, name: str) -> bool:
        """Return whether there is a blob of that name."""
        return (self._kept / name).is_file()

    def remove(self, names: Iterable[str]) -> None:
        """Delete these blobs; names without a file are ignored."""
        for name in names:
            (self._kept / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all blobs."""
        with os.scandir(self._kept) as entries:
            for entry in entries:
                Path(entry).unlink(missing_ok=True)

    def older_than(self, unix_time: float) -> Generator[str, None, None]:
        """Yield the names of files last written before then, incomplete ones included."""
        with os.scandir(self._kept) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.stat().st_mtime < unix_time:
                        yield entry.name

    def empty_spool(self, unix_time: float) -> None:
        """Delete the spool files that a crash left, of those last written before then.

        A spool file normally has no name: see `tempfile.TemporaryFile`.
        """
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
