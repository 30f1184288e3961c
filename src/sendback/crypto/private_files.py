"""Files that only their owner can read: secrets, certificates with keys, the database, bodies.

`create_private` writes atomically, and the file is durable when it returns.
"""

import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

# Another process may be writing its own candidate at this moment.
_LEFTOVER_SECONDS = 60.0
_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# In the data directory.
_OWN_FILES = ("secret.key", "tls.pem", "sns.pem", "server.lock")
_OWN_DIRECTORIES = ("blobs", "spool", "sockets")


def create_private(file: Path, content: bytes) -> None:
    """Create the file, readable by its owner only; an existing one is not changed.

    When two processes do this at once, both find the content of the first. Raise `OSError`.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_leftovers(file)
    # The process ID is not unique: after a crash another process may have it.
    descriptor, name = tempfile.mkstemp(prefix=_prefix(file), dir=file.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as output:
            output.write(content)
            output.flush()
            os.fsync(output.fileno())
        with suppress(FileExistsError):  # the other process was first
            os.link(partial, file)
    finally:
        partial.unlink()
    _sync_directory(file.parent)


def keep_private(data_dir: Path, database: Path | None) -> list[str]:
    """Remove group's and others' permissions on the installation's files; return warnings.

    The mode of the data directory is not changed, as it may be shared on purpose; a warning is
    returned if others can read it. `database` is the SQLite file, if that is the database.
    """
    files = [data_dir / name for name in (*_OWN_FILES, *_OWN_DIRECTORIES)]
    if database is not None:
        files += [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm")]
    warnings = [text for text in map(_tighten, files) if text]
    mode = stat.S_IMODE(data_dir.stat().st_mode)
    if mode & (stat.S_IROTH | stat.S_IXOTH):
        warnings.append(
            f"other users can read the data directory {data_dir} (mode {mode:o}): "
            f"chmod 700 {data_dir}"
        )
    return warnings


def _tighten(file: Path) -> str:
    """Return a warning, or an empty text."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & _FOR_OTHERS:
            file.chmod(mode & ~_FOR_OTHERS)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"other users may be able to read {file}: {error.strerror}"
    return ""


def _prefix(file: Path) -> str:
    return f".{file.name}.new-"


def _remove_leftovers(file: Path) -> None:
    """Remove temporary files that an earlier crash left."""
    before = time.time() - _LEFTOVER_SECONDS
    for path in file.parent.glob(f"{_prefix(file)}*"):
        with suppress(OSError):
            if path.stat().st_mtime < before:
                path.unlink()


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
