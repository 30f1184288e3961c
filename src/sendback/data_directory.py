"""Checks of the data directory: it is writable, and no other server uses it."""

import fcntl
import logging
import os
import tempfile
import time
from pathlib import Path

from sendback.config.settings import SettingError

log = logging.getLogger(__name__)

LOCK_FILE = "server.lock"
# Workers whose supervisor was killed hold the lock until they end, within a second or two.
_WAIT_SECONDS = 5.0
_RETRY_SECONDS = 0.05


def check_data_directory(folder: Path) -> None:
    """Create the directory if it is missing. Raise `SettingError` when it is not writable."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        allowed = f"a directory that can be written to ({error})"
        raise SettingError("data_dir", str(folder), "the settings", allowed) from None


def lock_data_directory(folder: Path, *, shared: bool) -> int:
    """Lock the directory for one server, or for several that all use `shared`.

    Return the lock file's descriptor. This process and its children hold the lock until the last
    of them has ended, even by `kill -9`. Wait some seconds for a server that is stopping. Raise
    `SettingError`.
    """
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    deadline = time.monotonic() + _WAIT_SECONDS
    is_first = True
    while not _try_lock(descriptor, operation):
        if is_first:
            log.warning("%s; waiting for it to end", _describe_holder(descriptor, folder))
            is_first = False
        if time.monotonic() > deadline:
            holder = _describe_holder(descriptor, folder)
            os.close(descriptor)
            raise SettingError("data_dir", str(folder), "the settings", _advice(holder))
        time.sleep(_RETRY_SECONDS)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _try_lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as error:  # some network file systems have no locks
        log.warning("the data directory cannot be locked against a second server: %s", error)
    return True


def _describe_holder(descriptor: int, folder: Path) -> str:
    """Describe the holder of the lock, by the process ID in the file."""
    try:
        process = int(os.pread(descriptor, 20, 0))
        os.kill(process, 0)
    except ProcessLookupError:
        return f"workers of a server that is gone still use {folder}"
    except PermissionError:  # it runs as another user
        pass
    except (ValueError, OSError):
        return f"another server uses {folder}"
    return f"another server (process {process}) uses {folder}"


def _advice(holder: str) -> str:
    return (
        f"{holder}: stop it, or give each server a data_dir of its own; for several on one "
        "directory, set share_data_dir to true for all of them"
    )
