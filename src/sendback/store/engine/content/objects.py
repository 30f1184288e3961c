"""Contents as objects of S3, Google Cloud Storage or Azure, through obstore.

obstore has threads of its own, which a forked child process lacks: there it would wait for them for
ever. So it is imported, and a store is opened, on first use, after the supervisor has forked.

A missing object and a missing bucket raise the same error; the difference is found by listing. The
credentials need the permission to list: without it S3 refuses access to a missing object.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from sendback.config.settings import SettingError
from sendback.config.types import ContentAddress
from sendback.mail.printable import printable
from sendback.redaction import without_users
from sendback.store.engine.content.model import (
    BlockFile,
    ContentGoneError,
    ContentUnavailableError,
    check_size,
    in_blocks,
)

# S3 permits no smaller parts. One part of each upload is in memory, with the copy that is sent.
_PART_OCTETS = 5 * 2**20
# Of one request that reads: an object of 40 MB takes 20.
_READ_OCTETS = 2 * 2**20
_BUFFER_OCTETS = 64 * 1024
_CONNECT = timedelta(seconds=3)
_REQUEST = timedelta(seconds=20)
# A client waits for the reply to its mail: it does not help to try for minutes.
_RETRIES: dict[str, Any] = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=8),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=1),
        "base": 2,
    },
}
_PROBE = ".probe"
_NOTHING = ".nothing"
_MAX_REASON = 300

T = TypeVar("T")


class ObjectContents:
    """The objects under the prefix of an address."""

    def __init__(self, address: ContentAddress) -> None:
        """Raise `SettingError` if obstore is not installed, or refuses the address."""
        self._address = address
        try:
            import obstore  # noqa: PLC0415 - an extra, and not before the fork
            from obstore import exceptions  # noqa: PLC0415
        except ImportError as error:
            allowed = (
                f"object stores need an extra package: pip install sendback[objects] ({error})"
            )
            raise SettingError("content_store", str(address), "the settings", allowed) from None
        self._obstore = obstore
        self._errors = exceptions
        try:
            self._store = _open(address)
        except exceptions.BaseError as error:
            allowed = _reason(error)
            raise SettingError("content_store", str(address), "the settings", allowed) from None

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        with self._mapped(name):
            # Not all of it in memory, and not the first part twice: see `in_blocks`.
            self._obstore.put(
                self._store,
                name,
                iter(in_blocks(pieces, _PART_OCTETS)),
                chunk_size=_PART_OCTETS,
                max_concurrency=1,
            )

    def open(self, name: str, size: int) -> io.BufferedIOBase:
        check_size(name, self.size(name), size)

        def read_block(offset: int) -> tuple[int, bytes]:
            end = min(offset + _READ_OCTETS, size)
            with self._mapped(name):
                block = self._obstore.get_range(self._store, name, start=offset, end=end)
                return offset, bytes(block)

        return io.BufferedReader(BlockFile(size, read_block), _BUFFER_OCTETS)

    def size(self, name: str) -> int | None:
        try:
            with self._mapped(name):
                return int(self._obstore.head(self._store, name)["size"])
        except ContentGoneError:
            return None

    def path(self, name: str) -> None:
        """Return None: there are no files."""

    def remove(self, names: Sequence[str]) -> None:
        try:
            with self._mapped("that was to be removed"):
                self._obstore.delete(self._store, names)
        except ContentGoneError:  # as it should be
            return

    def clear(self) -> None:
        with self._mapped(""):
            for some in self._obstore.list(self._store):
                self._obstore.delete(self._store, [entry["path"] for entry in some])

    def check(self) -> None:
        """Write, list and delete an object. Raise `SettingError`, `ContentUnavailableError`."""
        try:
            self._obstore.put(self._store, _PROBE, b"")
            self._list()
            self._obstore.delete(self._store, _PROBE)
        except FileNotFoundError:
            raise self._setting_error(f"there is no bucket {self._address.bucket}") from None
        except (self._errors.PermissionDeniedError, self._errors.UnauthenticatedError) as error:
            raise self._setting_error(f"access is denied: {_reason(error)}") from None
        except self._errors.BaseError as error:
            raise ContentUnavailableError(f"{self._address}: {_reason(error)}") from None

    def close(self) -> None:
        """Do nothing: obstore closes its connections itself."""

    def _list(self) -> None:
        """Check that the bucket is there; returns no objects."""
        for _ in self._obstore.list(self._store, prefix=_NOTHING):
            return

    def _setting_error(self, allowed: str) -> SettingError:
        return SettingError("content_store", str(self._address), "the settings", allowed)

    @contextmanager
    def _mapped(self, name: str) -> Iterator[None]:
        """Raise `ContentGoneError`, `ContentUnavailableError` for the errors of obstore."""
        try:
            yield
        except self._errors.BaseError as error:
            raise ContentUnavailableError(f"{self._address}: {_reason(error)}") from None
        except FileNotFoundError as error:
            try:
                self._list()
            except (self._errors.BaseError, FileNotFoundError):
                raise ContentUnavailableError(f"{self._address}: {_reason(error)}") from None
            raise ContentGoneError(f"the content {name} is not there any more") from None


def _open(address: ContentAddress) -> Any:
    from obstore.store import AzureStore, GCSStore, S3Store  # noqa: PLC0415

    kinds: dict[str, Callable[..., Any]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    options: dict[str, Any] = {**address.options, **address.secrets}
    for name in ("virtual_hosted_style_request", "use_emulator"):
        if name in options:
            options[name] = options[name] == "true"
    server = options.get("endpoint") or options.get("base_url") or ""
    return kinds[address.kind](
        address.bucket,
        prefix=address.prefix or None,
        config=options,
        client_options={
            "connect_timeout": _CONNECT,
            "timeout": _REQUEST,
            "allow_http": server.startswith("http:") or bool(options.get("use_emulator")),
        },
        retry_config=_RETRIES,
    )


def _reason(error: BaseException) -> str:
    """Return the first line of an error of obstore; pages of details follow it."""
    first = str(error).strip().partition("\n")[0]
    return printable(without_users(first), _MAX_REASON)
