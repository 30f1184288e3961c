"""Object stores of S3 actions: a directory for a bucket, or S3 by its API."""

import asyncio
import io
import os
import shutil
import uuid
from pathlib import Path

from sendback.actions.aws import AwsClients, is_aws
from sendback.aws.object_keys import ObjectKeyError, key_parts
from sendback.service.rules.content import CHUNK_OCTETS, Content, ContentGoneError
from sendback.service.rules.ports import ActionFailedError, UnknownTargetError
from sendback.service.rules.targets import DIRECTORY
from sendback.store.engine.errors import StoreUnavailableError


class ObjectStores:
    """Implements `ports.Objects`."""

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients

    async def check(self, target: str, bucket: str) -> None:
        """A directory need not be there yet; its nearest existing parent must be writable."""
        if is_aws(target):
            await self._clients.call("s3", target, "head_bucket", {"Bucket": bucket})
        else:
            await asyncio.to_thread(_check_directory, _directory(target))

    async def put(self, target: str, bucket: str, key: str, content: Content) -> str:
        """Store it; see `ports.Objects`."""
        if is_aws(target):
            await self._upload(target, bucket, key, content)
            return f"s3://{bucket}/{key}"
        path = _inside(_directory(target), key)
        try:
            await asyncio.to_thread(_write, path, content)
        except OSError as error:
            raise ActionFailedError(f"{path}: {error.strerror or error}") from error
        return str(path)

    async def _upload(self, target: str, bucket: str, key: str, content: Content) -> None:
        try:
            file = await asyncio.to_thread(content.open)
        except OSError as error:
            raise ActionFailedError(f"the content cannot be read: {error}") from error
        source = _Source(file)
        try:
            arguments = {"Bucket": bucket, "Key": key, "Body": source}
            await self._clients.call("s3", target, "put_object", arguments)
        except ActionFailedError:
            if source.error is not None:
                raise source.error from None
            raise
        finally:
            file.close()


class _Source:
    """A file that boto3 reads. It keeps the error of the file, which boto3 wraps in its own."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.error: ContentGoneError | StoreUnavailableError | None = None
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except (ContentGoneError, StoreUnavailableError) as error:
            self.error = error
            raise


def _directory(target: str) -> Path:
    if not target.startswith(DIRECTORY):
        raise UnknownTargetError(f"{target!r} is no place for objects", final=True)
    return Path(target.removeprefix(DIRECTORY))


def _check_directory(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ActionFailedError(f"{existing} is no directory that can be written to")


def _inside(folder: Path, key: str) -> Path:
    """Return the path of the key. Keys are untrusted and must not leave the directory."""
    try:
        return folder.joinpath(*key_parts(key))
    except ObjectKeyError as error:
        text = f"the key {key!r} cannot be a path: {error}"
        raise ActionFailedError(text, final=True) from None


def _write(path: Path, content: Content) -> None:
    """Write the file atomically and durably: the message's record will report it as stored.

    The partial file has a unique name: another account's rule may store under the same key.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with content.open() as source, partial.open("wb") as file:
            shutil.copyfileobj(source, file, CHUNK_OCTETS)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
