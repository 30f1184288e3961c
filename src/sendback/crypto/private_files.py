"""Files that are the owner's alone: secrets, certificates with their keys, the database, bodies.

What is written here appears whole or not at all, and is durable when `create_private` returns.
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
# What this program keeps in its data directory.
_OWN_FILES = ("secret.key", "tls.pem", "sns.pem", "server.lock")
_OWN_DIRECTORIES = ("blobs", "spool")


def create_private(file: Path, content: bytes) -> None:
    """Create the file, readable by its owner only; an existing one stays as it is.

    Two processes may do this at once: the first one's content is what both find. Raises `OSError`.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_leftovers(file)
    # A name of its own for each attempt: the process ID alone comes again after a crash.
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


def keep_private(data_dir: Path, database: Path) -> list[str]:
    """Take group's and others' access from the installation's own files; return warnings.

    The data directory itself is left as it is, because it may be shared on purpose: there is a
    warning if others can look into it. `database` is the SQLite file.
    """
    files = [data_dir / name for name in (*_OWN_FILES, *_OWN_DIRECTORIES)]
    files += [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm")]
    warnings = [text for text in map(_tighten, files) if text]
    mode = stat.S_IMODE(data_dir.stat().st_mode)
    if mode & (stat.S_IROTH | stat.S_IXOTH):
        warnings.append(
            f"other users can look into the data directory {data_dir} (mode {mode:o}): "
            f"chmod 700 {data_dir}"
        )
    return warnings


def _tighten(file: Path) -> str:
    """Return why it could not be done, or an empty text."""
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
    """What a crash left of earlier attempts: candidates that were never used."""
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
