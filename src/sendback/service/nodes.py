"""Records that this process serves, so that an upgrade knows whose code the database must suit."""

import asyncio
import logging

from sendback import __version__
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.nodes import RECORDED_EVERY, ForgetNode, RecordNode
from sendback.store.engine.store import Store
from sendback.store.engine.versions import newer_schema_error

log = logging.getLogger(__name__)


class NodeRecord:
    """The row of this process."""

    def __init__(self, store: Store, name: str) -> None:
        """`name` is this process's alone."""
        self._store = store
        self._name = name

    async def record(self) -> None:
        """Record that this process serves. Raises `SchemaError`, `StoreUnavailableError`.

        The error is for code that is too old for the database, which was contracted while this
        process was taken for dead: it must not serve.
        """
        schema = await self._store.write(RecordNode(self._name, __version__))
        if schema is not None and not schema.is_usable:
            raise newer_schema_error("of this server", schema)

    async def run(self) -> None:
        """Record it every few seconds until cancelled. Raises `SchemaError`."""
        while True:
            await asyncio.sleep(RECORDED_EVERY.total_seconds())
            try:
                await self.record()
            except StoreUnavailableError as error:
                log.debug("this process is not recorded: %s", error)

    async def forget(self) -> None:
        """Record that this process has stopped."""
        try:
            await self._store.write(ForgetNode(self._name))
        except StoreUnavailableError as error:
            log.warning("the database does not know that this process has stopped: %s", error)
