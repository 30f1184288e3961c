"""Contents as files in a directory of this machine, synced before the commit that names them."""

import io
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from sendback.store.engine.content.model import ContentGoneError
from sendback.store.engine.errors import StoreUnavailableError

_PARTIAL = ".partial"


class DirectoryContents:
    """The files in `folder`. Only `prepare` creates it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Create the directory. Raise `StoreUnavailableError`."""
        make_directory(self._folder)

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write a file and sync it; it is renamed to `name` once it is complete.

        Raises `OSError`; no file is left then.
        """
        partial = self._folder / f".{name}{_PARTIAL}"
        try:
            with partial.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(self.path(name))
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self._sync()

    def open(self, name: str, size: int) -> io.BufferedIOBase:
        """Open the file; see `ContentStore`."""
        return open_file(self.path(name), name, size)

    def size(self, name: str) -> int | None:
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return None

    def path(self, name: str) -> Path:
        return self._folder / name

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            self.path(name).unlink(missing_ok=True)

    def clear(self) -> None:
        self.remove(list(self.older_than(float("inf"))))

    def check(self) -> None:
        """Do nothing: `prepare` has created the directory."""

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def older_than(self, unix_time: float) -> Generator[str, None, None]:
        """Yield the names of files last written before then, incomplete ones included."""
        if not self._folder.exists():
            return
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.stat().st_mtime < unix_time:
                        yield entry.name

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def content_name(file: str) -> str:
    """Return the name of the content of which a file in the directory is, perhaps, a part."""
    return file.removeprefix(".").removesuffix(_PARTIAL) if file.endswith(_PARTIAL) else file


def open_file(path: Path, name: str, size: int) -> io.BufferedReader:
    """Open a file that has the content `name`.

    Raises `ContentGoneError` when it is missing or has another size, and `OSError`.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise ContentGoneError(f"the content {name} is not there any more") from None
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        raise ContentGoneError(f"the content {name} is not complete")
    return file


def make_directory(folder: Path) -> None:
    """Create a directory for this user only. Raise `StoreUnavailableError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        text = f"the directory {folder} cannot be made: {error.strerror}"
        raise StoreUnavailableError(text) from error
