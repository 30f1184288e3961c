"""The data directory: that it can be used, and that no other server uses it unnoticed."""

import fcntl
import logging
import os
import tempfile
import time
from pathlib import Path

from sendback.config.settings import SettingError

log = logging.getLogger(__name__)

LOCK_FILE = "server.lock"
# Workers whose supervisor was killed end within a second or two; until then they hold the lock.
_WAIT_SECONDS = 5.0
_RETRY_SECONDS = 0.05


def check_data_directory(folder: Path) -> None:
    """Make the directory if it is not there. Raises `SettingError` when it cannot be used."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        allowed = f"a directory that can be written to ({error})"
        raise SettingError("data_dir", str(folder), "the settings", allowed) from None


def lock_data_directory(folder: Path, *, shared: bool) -> int:
    """Lock the directory for one server, or for several that all say `shared`.

    Returns the lock file's descriptor. The lock is held by this process and those that it forks,
    and ends when all of them have ended, however they do. Waits some seconds for a server that is
    just ending. Raises `SettingError`.
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
    """Who holds the lock, as far as the file says so."""
    try:
        process = int(os.pread(descriptor, 20, 0))
        os.kill(process, 0)
    except ProcessLookupError:
        return f"workers of a server that is gone still use {folder}"
    except PermissionError:  # it lives, and is another user's
        pass
    except (ValueError, OSError):
        return f"another server uses {folder}"
    return f"another server (process {process}) uses {folder}"


def _advice(holder: str) -> str:
    return (
        f"{holder}: stop it, or give each server a data_dir of its own; for several on one "
        "directory, set share_data_dir to true for all of them"
    )
