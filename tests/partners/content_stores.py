"""The content stores that the contract is tested on: one fixture, all of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from sendback.config.readers import content_store
from sendback.config.types import ContentAddress
from sendback.store.engine.store import Store, prepare_schema
from tests.conftest import need
from tests.partners.postgresql import binaries, shared_server

KINDS = ("directory", "database on SQLite", "database on PostgreSQL", "s3")


@dataclass
class Place:
    """A store of an installation whose contents are of one kind."""

    kind: str
    url: str
    folder: Path
    address: ContentAddress

    def open(self) -> Store:
        return Store(self.url, self.folder, self.address)


def place(kind: str, folder: Path, server: Any, port: int | None = None) -> Place:
    """A new, empty place. `server` returns the object server."""
    url = f"sqlite:///{folder / 'x.db'}"
    if kind == "database on PostgreSQL":
        need("PostgreSQL", available=binaries() is not None)
        return Place(kind, shared_server().create(), folder, ContentAddress("database"))
    prepare_schema(url)
    if kind == "s3":
        address = content_store(server().url(uuid4().hex, port))
        return Place(kind, url, folder, address)
    return Place(kind, url, folder, ContentAddress(kind.partition(" ")[0]))
