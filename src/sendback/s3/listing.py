"""ListObjectsV2 of a directory. Blocking.

Theory of operation. Folders are read in the order of keys (UTF-8, S3's order): a folder sorts as
its name with a slash. Folders that cannot hold a key of the page are not opened. Symbolic links,
files that are being written and names that are no keys are left out; a folder without objects is no
common prefix. An object without a sidecar has to be read for its ETag, the first time: a page ends
early when it has read `_MAX_HASHED` octets, as S3 permits.
"""

import os
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from sendback.aws.object_keys import ObjectKeyError, key_parts
from sendback.s3.directory import Directory
from sendback.s3.errors import S3Error
from sendback.s3.requests import Listing, token_for
from sendback.s3.xml import ListedObject, Page

_MAX_HASHED = 256 * 2**20
_LAST = "\U0010ffff"  # behind a common prefix: greater than every key that it has


@dataclass
class _Result:
    objects: list[ListedObject] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    hashed: int = 0
    last: str = ""


class _Lister:
    def __init__(self, directory: Directory, listing: Listing) -> None:
        self._directory = directory
        self._listing = listing
        self._prefix = listing.prefix
        self._after = listing.after

    def page(self) -> Page:
        result, limit = _Result(), self._listing.max_keys
        for key in self._grouped() if limit else ():
            is_full = len(result.objects) + len(result.prefixes) >= limit
            if is_full or result.hashed > _MAX_HASHED:
                return Page(result.objects, result.prefixes, token_for(result.last))
            self._take(key, result)
        return Page(result.objects, result.prefixes, None)

    def _take(self, key: str, result: _Result) -> None:
        delimiter = self._listing.delimiter
        if delimiter and key.find(delimiter, len(self._prefix)) >= 0:
            result.prefixes.append(key)
            result.last = key + _LAST
            return
        result.last = key
        try:
            descriptor = self._directory.open_file(key)
        except S3Error:  # deleted meanwhile, or this server may not read it
            return
        try:
            if not self._directory.is_hashed(descriptor, key):
                result.hashed += os.fstat(descriptor).st_size
            data = self._directory.describe(descriptor, key)
        finally:
            os.close(descriptor)
        result.objects.append(ListedObject(key, data.size, data.modified, data.etag))

    def _grouped(self) -> Iterator[str]:
        """Yield keys and common prefixes, in order."""
        delimiter, group = self._listing.delimiter, ""
        for key in self._walk((), by_folder=delimiter == "/"):
            end = key.find(delimiter, len(self._prefix)) if delimiter else -1
            if end < 0:
                yield key
            elif not group or not key.startswith(group):
                group = key[: end + len(delimiter)]
                yield group

    def _walk(self, folder: tuple[str, ...], *, by_folder: bool) -> Iterator[str]:
        """Yield the keys of a folder; `by_folder`: of a folder behind the prefix, only its name."""
        base = "".join(f"{name}/" for name in folder)
        for name in self._names(folder, base):
            key = base + name
            if not name.endswith("/"):
                if key.startswith(self._prefix) and key > self._after:
                    yield key
                continue
            if not self._may_hold(key):
                continue
            child = (*folder, name[:-1])
            if by_folder and key.startswith(self._prefix) and len(key) > len(self._prefix):
                if next(self._walk(child, by_folder=False), None) is not None:
                    yield key
            else:
                yield from self._walk(child, by_folder=by_folder)

    def _may_hold(self, folder: str) -> bool:
        """Whether keys that begin with this text can be on the page."""
        if not (folder.startswith(self._prefix) or self._prefix.startswith(folder)):
            return False
        return folder > self._after or self._after.startswith(folder)

    def _names(self, folder: tuple[str, ...], base: str) -> list[str]:
        """Return the names in a folder, those of folders with a slash, from where to begin."""
        try:
            with self._directory.folder(folder) as descriptor, os.scandir(descriptor) as entries:
                names = sorted(
                    f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in entries
                    if not entry.is_symlink() and _is_key(base + entry.name)
                )
        except OSError:  # it is not there (yet), is no folder any more, or not readable
            return []
        first = self._prefix[len(base) :].partition("/")[0] if self._prefix.startswith(base) else ""
        return names[bisect_left(names, first) :]


def _is_key(path: str) -> bool:
    try:
        key_parts(path)
    except ObjectKeyError:
        return False
    return True


def list_page(directory: Directory, listing: Listing) -> Page:
    """Return a page of the objects of a directory."""
    return _Lister(directory, listing).page()
