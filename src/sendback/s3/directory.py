"""A directory as a bucket: objects are files, their headers are in sidecar files. Blocking.

Theory of operation. An object's file is what a rule stored, or PutObject; nothing else is needed to
read it. Headers, metadata, the ETag and checksums of PutObject and CopyObject are in a file of
`.sendback/`, whose name has the key's hash and the file's inode, date and size: so it describes
this file and no other, and a file that a rule or a person puts in its place has none. An upload is
written in `.sendback/uploads/`, synced, and renamed to its place. What a crash left there is
deleted when an upload begins an hour later.

No symbolic link is followed below the bucket's directory: every folder is opened from the one above
it with O_NOFOLLOW, so a key cannot lead out, whatever else changes the directory meanwhile. A key
whose path goes through a file, or that is a folder, cannot be written: InvalidRequest.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import stat
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from cachetools import LRUCache

from sendback.aws.object_keys import RESERVED_FOLDER, ObjectKeyError, is_partial, key_parts
from sendback.s3.errors import S3Error, no_such_key
from sendback.s3.requests import Headers

READ_OCTETS = 256 * 1024
_MAX_SIDECAR = 64 * 1024
_CACHED_ETAGS = 100_000
_RENAME_TRIES = 3
_UPLOADS = (RESERVED_FOLDER, "uploads")
# An upload that is alive writes more often; a slow client is disconnected long before.
_ABANDONED_SECONDS = 3600.0
_SWEPT_AT_ONCE = 1000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO would wait for its other end.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ObjectData:
    """What is reported about an object; `etag` without quotes, checksums by algorithm."""

    size: int
    modified: datetime
    etag: str
    headers: Headers = field(default_factory=Headers)
    checksums: Mapping[str, str] = field(default_factory=dict)


class EtagCache:
    """The MD5 of files that have no sidecar, by device, inode, date and size."""

    def __init__(self) -> None:
        self._found: LRUCache[tuple[int, int, int, int], str] = LRUCache(_CACHED_ETAGS)
        self._lock = Lock()

    def find(self, status: os.stat_result) -> str | None:
        with self._lock:
            return self._found.get(_identity(status))

    def keep(self, status: os.stat_result, etag: str) -> None:
        with self._lock:
            self._found[_identity(status)] = etag


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


class OpenObject:
    """An object that is open for reading; close it."""

    def __init__(self, descriptor: int, data: ObjectData) -> None:
        self._descriptor = descriptor
        self.data = data

    def read(self, position: int, octets: int) -> bytes:
        """Return octets from a position; fewer, if the file has become shorter."""
        return os.pread(self._descriptor, min(octets, READ_OCTETS), position)

    def close(self) -> None:
        os.close(self._descriptor)


class Upload:
    """A file that is being written; end it by `Directory.store` or `discard`."""

    def __init__(self, folder: int) -> None:
        """`folder` is the descriptor of the folder of uploads, which the upload closes."""
        self.folder = folder
        self.name = f".{uuid.uuid4().hex}.{uuid.uuid4().hex[:8]}.partial"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.descriptor = os.open(self.name, flags, 0o600, dir_fd=folder)
        except BaseException:
            os.close(folder)
            raise
        self.size = 0
        self.md5 = hashlib.md5(usedforsecurity=False)

    def write(self, octets: bytes) -> None:
        self.md5.update(octets)
        self.size += len(octets)
        view = memoryview(octets)
        while view:
            view = view[os.write(self.descriptor, view) :]

    def finish(self) -> os.stat_result:
        """Sync the file; return its status, with a date that is exact to the nanosecond."""
        now = time.time_ns()
        os.utime(self.descriptor, ns=(now, now))
        os.fsync(self.descriptor)
        return os.fstat(self.descriptor)

    def discard(self) -> None:
        """Delete what was written, unless it has become an object."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self.folder)
        os.close(self.descriptor)
        os.close(self.folder)


class Directory:
    """One bucket. Methods raise `S3Error`, and `OSError` for a disk that fails or is full."""

    def __init__(self, path: Path, etags: EtagCache) -> None:
        self._path = path
        self._etags = etags

    # --- reading ----------------------------------------------------------------------------

    def open(self, key: str) -> OpenObject:
        """Open an object. Raise NoSuchKey."""
        descriptor = self.open_file(key)
        try:
            return OpenObject(descriptor, self.describe(descriptor, key))
        except BaseException:
            os.close(descriptor)
            raise

    def open_file(self, key: str) -> int:
        """Return the descriptor of an object's file. Raise NoSuchKey."""
        try:
            *folders, name = key_parts(key)
        except ObjectKeyError:
            raise no_such_key(key) from None
        try:
            with self.folder(folders) as folder:
                descriptor = os.open(name, _FILE, dir_fd=folder)
        except PermissionError:
            raise S3Error("AccessDenied", "This server may not read the object's file.") from None
        except OSError as error:
            if error.errno in _ABSENT:
                raise no_such_key(key) from None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise no_such_key(key)
        return descriptor

    def describe(self, descriptor: int, key: str) -> ObjectData:
        """Return the data of an open file, whose MD5 is computed if it is not known."""
        status = os.fstat(descriptor)
        sidecar = self._read_sidecar(key, status)
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        if sidecar is not None:
            headers = Headers(sidecar["fields"], sidecar["metadata"])
            checksums = sidecar["checksums"]
            return ObjectData(status.st_size, modified, sidecar["etag"], headers, checksums)
        return ObjectData(status.st_size, modified, self._etag(descriptor, status))

    def is_hashed(self, descriptor: int, key: str) -> bool:
        """Whether the ETag of an open file is known without reading it."""
        status = os.fstat(descriptor)
        return self._etags.find(status) is not None or bool(self._read_sidecar(key, status))

    def _etag(self, descriptor: int, status: os.stat_result) -> str:
        found = self._etags.find(status)
        if found is None:
            md5, position = hashlib.md5(usedforsecurity=False), 0
            while octets := os.pread(descriptor, READ_OCTETS, position):
                md5.update(octets)
                position += len(octets)
            found = md5.hexdigest()
            self._etags.keep(status, found)
        return found

    def _read_sidecar(self, key: str, status: os.stat_result) -> dict[str, Any] | None:
        try:
            with self.folder((RESERVED_FOLDER,)) as folder:
                descriptor = os.open(_sidecar_name(key, status), _FILE, dir_fd=folder)
        except OSError:
            return None
        try:
            value = json.loads(os.read(descriptor, _MAX_SIDECAR))
        except (OSError, ValueError, RecursionError):
            return None
        finally:
            os.close(descriptor)
        return value if _is_sidecar(value) else None

    @contextlib.contextmanager
    def folder(self, names: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """Open a folder below the bucket's, without following links. Raise `OSError`."""
        if create:
            self._path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, _FOLDER)
        try:
            for name in names:
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, dir_fd=descriptor)
                below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    # --- writing ----------------------------------------------------------------------------

    def begin(self, needed: int) -> Upload:
        """Begin to write an object. Raise ServiceUnavailable unless `needed` octets are free.

        As for mail, a twentieth of the disk is enough.
        """
        with self.folder(_UPLOADS, create=True) as folder:
            _sweep(folder)
            disk = os.fstatvfs(folder)
            if disk.f_bavail < min(needed // disk.f_frsize, disk.f_blocks // 20):
                raise S3Error("ServiceUnavailable", "The disk of this bucket is full.")
            return Upload(os.dup(folder))

    def store(
        self,
        upload: Upload,
        parts: Sequence[str],
        headers: Headers,
        checksums: Mapping[str, str],
        *,
        only_new: bool,
    ) -> ObjectData:
        """Make what was written an object, durably. Raise `S3Error`.

        `only_new`: raise PreconditionFailed if there is one with this key.
        """
        key, status = "/".join(parts), upload.finish()
        etag = upload.md5.hexdigest()
        sidecar = _sidecar_name(key, status)
        with self.folder((RESERVED_FOLDER,), create=True) as reserved:
            _write_sidecar(reserved, sidecar, headers, etag, checksums)
            try:
                replaced = self._place(upload, parts, only_new=only_new)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(sidecar, dir_fd=reserved)
                raise
            if replaced is not None:
                self._drop_sidecar(reserved, key, replaced)
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        return ObjectData(status.st_size, modified, etag, headers, checksums)

    def _place(
        self, upload: Upload, parts: Sequence[str], *, only_new: bool
    ) -> os.stat_result | None:
        """Move the file to its place; return the status of the file that it replaces, if any."""
        for _ in range(_RENAME_TRIES - 1):
            with contextlib.suppress(FileNotFoundError):  # somebody deleted the new folder
                return self._move(upload, parts, only_new=only_new)
        return self._move(upload, parts, only_new=only_new)

    def _move(
        self, upload: Upload, parts: Sequence[str], *, only_new: bool
    ) -> os.stat_result | None:
        *folders, name = parts
        key = "/".join(parts)
        try:
            with self.folder(folders, create=True) as folder:
                before = _status(name, folder)
                if before is not None and stat.S_ISDIR(before.st_mode):
                    os.rmdir(name, dir_fd=folder)  # if it is empty; a listing does not show it
                if only_new:
                    os.link(upload.name, name, src_dir_fd=upload.folder, dst_dir_fd=folder)
                else:
                    os.rename(upload.name, name, src_dir_fd=upload.folder, dst_dir_fd=folder)
                os.fsync(folder)
        except FileExistsError:
            raise S3Error(
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
            ) from None
        except OSError as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP, errno.ENOTEMPTY, errno.EISDIR}:
                raise _no_place(key) from None
            raise
        return before

    def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        try:
            *folders, name = key_parts(key)
        except ObjectKeyError:
            return
        try:
            with self.folder(folders) as folder:
                status = _status(name, folder)
                if status is None or not stat.S_ISREG(status.st_mode):
                    return
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
        except OSError as error:
            if error.errno in _ABSENT:
                return
            raise
        with contextlib.suppress(OSError), self.folder((RESERVED_FOLDER,)) as folder:
            self._drop_sidecar(folder, key, status)

    @staticmethod
    def _drop_sidecar(folder: int, key: str, status: os.stat_result) -> None:
        with contextlib.suppress(OSError):
            os.unlink(_sidecar_name(key, status), dir_fd=folder)


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _sweep(folder: int) -> None:
    """Delete the files of uploads that were not ended, because the server was."""
    abandoned = time.time() - _ABANDONED_SECONDS
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in itertools.islice(entries, _SWEPT_AT_ONCE):
            with contextlib.suppress(FileNotFoundError):  # another upload has deleted it
                written = entry.stat(follow_symlinks=False).st_mtime
                if is_partial(entry.name) and written < abandoned:
                    os.unlink(entry.name, dir_fd=folder)


def _sidecar_name(key: str, status: os.stat_result) -> str:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f".{digest}-{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}.json"


def _write_sidecar(
    folder: int, name: str, headers: Headers, etag: str, checksums: Mapping[str, str]
) -> None:
    value = {**asdict(headers), "etag": etag, "checksums": dict(checksums)}
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())


def _is_sidecar(value: object) -> bool:
    """Whether it has the members that `_write_sidecar` writes; people can write files too."""
    if not isinstance(value, dict) or not isinstance(value.get("etag"), str):
        return False
    tables = [value.get(name) for name in ("fields", "metadata", "checksums")]
    return all(
        isinstance(table, dict) and all(isinstance(text, str) for text in table.values())
        for table in tables
    )


def _no_place(key: str) -> S3Error:
    return S3Error(
        "InvalidRequest",
        "In a bucket that is a directory, a key cannot be both an object and a folder of others: "
        "the key, or a part of its path, is one already.",
        {"Key": key},
    )
