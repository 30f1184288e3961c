"""How much content the disk can still store: measured at intervals, counted in between."""

import errno
import os
from pathlib import Path

from sendback.smtp.session import StorageSpace

# On a small disk, a twentieth of it stays free instead of `min_free`.
_SMALLEST_RESERVE = 20


class DiskSpace(StorageSpace):
    """The free octets of the disk that a directory is on, less a reserve.

    The database needs the reserve to process what was received, and to delete it.
    """

    def __init__(self, directory: Path, min_free: int) -> None:
        super().__init__()
        self._directory = directory
        self._min_free = min_free

    def refresh(self) -> None:
        """Measure. On failure the last measurement stays: writing reports a failing disk."""
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return
        reserve = min(self._min_free, found.f_blocks * found.f_frsize // _SMALLEST_RESERVE)
        self.octets = found.f_bavail * found.f_frsize - reserve

    def take(self, octets: int) -> None:
        """Count octets that are written. Raises `OSError` (ENOSPC) when there is no space."""
        if octets > self.octets:
            raise OSError(errno.ENOSPC, "less free space than the setting smtp_min_free")
        self.octets -= octets
