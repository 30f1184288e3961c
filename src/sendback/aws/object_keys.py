"""Keys of objects in a bucket that is a directory: each is a relative path. Pure.

An object `in/2026/id` is the file `id` in the folder `in/2026`. So not every key of S3 can be one:
a part may not be empty, `.` or `..`, and has a bounded length. Names that this server uses for
itself are reserved: the folder `.sendback` (metadata, uploads) and files that are being written.
"""

import re

MAX_KEY = 1024  # octets, as S3
MAX_PART = 200  # octets; file systems allow 255, and a partial file has a suffix
RESERVED_FOLDER = ".sendback"

_PARTIAL = re.compile(r"\..*\.[0-9a-f]{8}\.partial", re.DOTALL)


class ObjectKeyError(ValueError):
    """The key cannot be a path. `str` is the reason."""


def key_parts(key: str) -> tuple[str, ...]:
    """Return the folders and the file of a key. Raise `ObjectKeyError`."""
    try:
        octets = key.encode()
    except UnicodeEncodeError:
        raise ObjectKeyError("it is not UTF-8") from None
    if len(octets) > MAX_KEY:
        raise ObjectKeyError(f"it has more than {MAX_KEY} bytes")
    parts = tuple(key.split("/"))
    for part in parts:
        _check_part(part)
    if parts[0] == RESERVED_FOLDER:
        raise ObjectKeyError(f"{RESERVED_FOLDER} is reserved")
    return parts


def _check_part(part: str) -> None:
    if part in {"", ".", ".."} or "\0" in part:
        raise ObjectKeyError("a part of its path is empty, '.' or '..', or has a NUL")
    if len(part.encode()) > MAX_PART:
        raise ObjectKeyError(f"a part of its path has more than {MAX_PART} bytes")
    if is_partial(part):
        raise ObjectKeyError("it is the name of a file that is being written")


def is_partial(name: str) -> bool:
    """Whether it is the name of a file that is being written: `.NAME.01234567.partial`."""
    return _PARTIAL.fullmatch(name) is not None
