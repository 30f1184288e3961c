"""The event loop of a server under test, in a thread of its own."""

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvloop

from sendback.app import App
from sendback.errors import SendbackError
from sendback.net.listening import Sockets
from sendback.serving import serve
from sendback.store.access.accounts import AddAccount

T = TypeVar("T")

# For a call; longer than anything that a test waits for on purpose.
_CALL_SECONDS = 60.0
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0


class ServerError(SendbackError):
    """The server under test cannot do what it is asked to; `str` says why and what to do."""


class ServerThread:
    """Runs an app until `stop`."""

    def __init__(self, create: Callable[[], App], sockets: Sockets) -> None:
        """`create` is called in the thread's event loop."""
        self._create = create
        self._sockets = sockets
        self._process = os.getpid()
        self._loop = uvloop.new_event_loop()
        self._stop = asyncio.Event()
        self._started: Future[App] = Future()
        self._thread = threading.Thread(target=self._run, name="sendback-server", daemon=True)
        _threads.add(self)

    def start(self) -> App:
        """Return the app once it serves. Raise what prevents it from serving."""
        self._thread.start()
        return self._started.result(_START_SECONDS)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's event loop and return its result."""
        if os.getpid() != self._process:
            work.close()
            raise ServerError(
                f"this server runs in process {self._process}, and this is a child of it "
                f"({os.getpid()}): use its endpoint_url, smtp and env here, or start another one"
            )
        if threading.current_thread() is self._thread:
            work.close()
            raise ServerError("this is the server's own thread: call it from another one")
        if not self._thread.is_alive():
            work.close()
            raise ServerError("the server has stopped")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECONDS)

    def stop(self) -> None:
        """Finish what was accepted and end the thread. Raise `ServerError` if it does not end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():
                raise ServerError(f"the server did not stop in {_STOP_SECONDS:g} s")
        self._sockets.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            else:
                raise
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _main(self) -> None:
        app = self._create()
        try:
            await app.database_clock.measure()
            await app.check_secret()
            await app.store.write(AddAccount(app.settings.account_id, app.clock.now()))
            await serve(app, self._sockets, lambda: self._started.set_result(app), self._stop)
        finally:
            app.close()

    def _after_fork(self) -> None:
        """Close the listeners that a child has inherited, so that the parent alone accepts."""
        self._sockets.close()


_threads: "weakref.WeakSet[ServerThread]" = weakref.WeakSet()


def _after_fork() -> None:
    for thread in list(_threads):
        thread._after_fork()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork)
