"""How much content the disk still takes. Measured now and then, counted in between."""

import errno
import os
from pathlib import Path

from sendback.smtp.protocol import Space

# A small disk keeps a twentieth of itself free instead of `min_free`.
_LEAST_SHARE = 20


class DiskSpace(Space):
    """The free octets of the disk that a directory is on, without those that are left free.

    The database needs room for what has been received: for its steps, and to delete it.
    """

    def __init__(self, directory: Path, min_free: int) -> None:
        super().__init__()
        self._directory = directory
        self._min_free = min_free

    def refresh(self) -> None:
        """Measure. If that fails, what was known stays: writing will fail if it must."""
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return
        reserve = min(self._min_free, found.f_blocks * found.f_frsize // _LEAST_SHARE)
        self.octets = found.f_bavail * found.f_frsize - reserve

    def take(self, octets: int) -> None:
        """Count octets that are written. Raises `OSError` (ENOSPC) when there is no space."""
        if octets > self.octets:
            raise OSError(errno.ENOSPC, "less free space than the setting smtp_min_free")
        self.octets -= octets
