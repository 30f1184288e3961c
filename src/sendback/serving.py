"""The server: it runs the parts of the app, in one process or several.

One process serves SMTP, HTTP and delivery on one event loop. With several workers, each is such
a process; they share only the listening sockets and the store. All checks that can be made early
are made before the first worker is forked.

A single process has no supervisor, which would cost memory and start-up time. Its watchdog ends it
when it hangs, and systemd or Docker restarts it.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import uvicorn
import uvloop

# `app` imports these when it creates their services. Imported here, before the workers are forked,
# they are in memory once.
import sendback.actions.backends
import sendback.delivery.outbound
import sendback.service.events.counters
import sendback.service.housekeeping
import sendback.service.identities.dns_checks
import sendback.service.identities.signing
import sendback.service.nodes
import sendback.service.readiness
import sendback.service.receiving.receiving
import sendback.service.rules.worker
import sendback.smtp.server
import sendback.verdicts.checks
import sendback.verdicts.processes
import sendback.verdicts.scanners  # noqa: F401
from sendback.api.connections import HttpConnection
from sendback.api.http import http_app
from sendback.api.pages import VerificationPages
from sendback.app import App, check_secret, check_settings
from sendback.aws.model import operation_model
from sendback.config.loading import LoadedSettings
from sendback.config.settings import SettingError, Settings
from sendback.crypto.private_files import keep_private
from sendback.crypto.sealing import Sealing
from sendback.data_directory import check_data_directory, lock_data_directory
from sendback.descriptors import raise_limit
from sendback.errors import SendbackError
from sendback.logs import PrintableFormatter
from sendback.net.listening import BACKLOG, Addresses, Sockets, bind
from sendback.processes import Lifeline, Supervisor
from sendback.service.queues.worker import wait_or_poll
from sendback.stop_signals import StopRequest
from sendback.store.access.accounts import AddAccount
from sendback.store.engine.content.contents import open_store
from sendback.store.engine.content.model import ContentUnavailableError
from sendback.store.engine.store import Store, prepare_schema
from sendback.watchdog import Watchdog, beat, dump_stacks_on_signal

if TYPE_CHECKING:
    from sendback.console.routes import Console

log = logging.getLogger(__name__)

# Time for which a computing thread (a transaction, an event of a hostile mail) keeps the GIL from
# the event loop, which needs it some ten times for a mail. With CPython's 5 ms a mail took
# twice as long during attacks; 1 ms costs nothing that bench/ could measure.
_SWITCH_SECONDS = 0.001
# Maximum time from a signal to the end, and the part of it for HTTP requests in progress.
_STOP_SECONDS = 15.0
_HTTP_SECONDS = 4.0
# Maximum time for closing the store after that: a write may wait five seconds for the lock.
_CLOSE_SECONDS = 10.0
# Time until a worker without a supervisor ends.
_ORPHAN_SECONDS = 1.0


# What the check of an object store reports.
_IS_GOOD = "good"
_IS_WRONG = "wrong"
_MAX_PROBLEM = 4000  # octets: a pipe takes them at once


class _HttpServer(uvicorn.Server):
    """uvicorn without its signal handling, which the process does itself."""

    def __init__(self, app: App) -> None:
        config = uvicorn.Config(
            http_app(
                app.dispatcher,
                app.readiness.is_ready,
                app.action_backends.signer.certificate_at,
                VerificationPages(app.verification, app.settings.hostname),
                objects=app.objects,
                inspection=app.inspection.routes(),
                console=(lambda: _console(app)) if app.settings.console else None,
            ),
            loop="none",
            http=cast("type[asyncio.Protocol]", partial(HttpConnection, app.http_limits)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            date_header=True,
            timeout_graceful_shutdown=int(_HTTP_SECONDS),
        )
        super().__init__(config)
        self._exiting = asyncio.Event()

    async def main_loop(self) -> None:
        """Update the Date field each second until `exit` is called.

        uvicorn looks for the end ten times a second; a server for tests would lose that time.
        """
        await self.on_tick(0)
        while not self.should_exit:
            await wait_or_poll(self._exiting, 1.0)
            await self.on_tick(0)

    def exit(self) -> None:
        """End the server once the requests in progress have ended."""
        self.should_exit = True
        self._exiting.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop_listening(self) -> None:
        """Accept no new connections; open ones continue."""
        for server in self.servers:
            server.close()


def _console(app: App) -> "Console":
    """Return the console, which can carry out the checks of `sendback doctor`."""
    from sendback.doctor.checks import Doctor  # noqa: PLC0415 - when somebody opens the console

    if app.examine is None:
        connects = not app.settings.outbound.captures
        doctor = Doctor(app, addresses=(), probe="gmail.com", outside=connects)
        app.examine = doctor.examine
    return app.console


class _Parts:
    """The servers and workers of one process."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._http = _HttpServer(app)
        self._smtp: asyncio.AbstractServer
        self._serving_http: asyncio.Task[None]
        self._queues: tuple[asyncio.Task[None], ...]
        self._background: tuple[asyncio.Task[None], ...]

    async def start(self, sockets: Sockets) -> None:
        """Start all parts. Raise the exception of a part that could not start."""
        app = self._app
        loop = asyncio.get_running_loop()
        await app.node.record()
        app.serve_queues()
        app.event_exchange.start()
        app.events.count_with(app.counters.count)
        self._smtp = await loop.create_server(app.smtp, sock=sockets.smtp, backlog=BACKLOG)
        self._serving_http = asyncio.create_task(self._http.serve(sockets=[sockets.http]))
        self._queues = (
            asyncio.create_task(app.delivery.run()),
            asyncio.create_task(app.processing.run()),
        )
        self._background = (
            asyncio.create_task(app.housekeeping.run()),
            asyncio.create_task(app.identity_checks.run()),
            asyncio.create_task(app.database_clock.run()),
            asyncio.create_task(app.node.run()),
            asyncio.create_task(app.counters.run()),
        )
        while not self._http.started and not self._serving_http.done():
            await asyncio.sleep(0.002)
        if not self._http.started:
            await self._serving_http
            raise RuntimeError("the HTTP server did not start")

    async def run_until(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set, or when a part has ended unexpectedly."""
        stopping = asyncio.create_task(stop.wait())
        parts = {self._serving_http, *self._queues, *self._background}
        await asyncio.wait({stopping, *parts}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()

    def stop_listening(self) -> None:
        """Accept no new connections."""
        self._smtp.close()
        self._http.stop_listening()

    async def stop(self, seconds: float) -> None:
        """Finish the work that was accepted, in `seconds` at most.

        Raise the exception of a part that ended unexpectedly.
        """
        app = self._app
        deadline = asyncio.get_running_loop().time() + seconds
        self._smtp.close()
        app.delivery.stop()
        app.processing.stop()
        for task in self._background:
            task.cancel()
        app.identity_checks.close()
        await app.smtp.shut_down(seconds / 2)
        await _end_by(deadline - _HTTP_SECONDS, *self._queues)
        await app.mail_checks.close()
        app.events.close()
        app.event_exchange.close()
        # Functions in progress may call the API, so HTTP stops after them.
        await app.action_backends.close()
        self._http.exit()
        await _end_by(deadline, self._serving_http, *self._background)
        await app.counters.close()
        await app.node.forget()
        for task in (self._serving_http, *self._queues, *self._background):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error


async def _end_by(deadline: float, *tasks: asyncio.Task[None]) -> None:
    """Wait for tasks until the deadline, then cancel those that are left."""
    left = max(deadline - asyncio.get_running_loop().time(), 0.1)
    _, late = await asyncio.wait(tasks, timeout=left)
    for task in late:
        log.warning("%s did not end in time", task.get_coro())
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=1.0)


async def serve(
    app: App,
    sockets: Sockets,
    ready: Callable[[], None],
    stop: asyncio.Event,
    life: "_Life | None" = None,
) -> None:
    """Serve until `stop` is set, then finish the work that was accepted."""
    parts = _Parts(app)
    await parts.start(sockets)
    if life is not None:
        life.attach(parts.stop_listening)
    if not stop.is_set():
        ready()
    await parts.run_until(stop)
    await parts.stop(_STOP_SECONDS)


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # Of uvicorn's events, those that are no problem are reported by this server itself.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def run(
    loaded: LoadedSettings,
    ready_file: Path | None,
    announce: Callable[[Addresses], None],
    stop: StopRequest,
) -> int:
    """Serve until a signal stops the server; return the exit code.

    Raise `SettingError`, `SchemaError`, `SecretError`, `StoreUnavailableError` before serving, and
    `WorkerFailedError`.
    """
    settings = loaded.settings
    sys.setswitchinterval(_SWITCH_SECONDS)
    os.umask(0o077)  # mail and keys: other users must not read them
    _log_to_stderr(settings.log_level)
    check_data_directory(settings.data_dir)
    lock_data_directory(settings.data_dir, shared=settings.share_data_dir)
    _make_certificate(settings)
    prepare(settings)
    if settings.content_address.is_object_store:
        _check_object_store(settings)
    _warn(settings)
    sockets, addresses = bind(settings)

    def ready() -> None:
        announce(addresses)
        if ready_file is not None:
            _write_whole(ready_file, addresses.to_json())

    timeout = settings.worker_timeout.total_seconds()
    if settings.workers == 1:
        life = _Alone(stop, ready, Watchdog(timeout))
        return _Process(loaded, sockets, addresses, life).run()

    def work(lifeline: Lifeline, stop: StopRequest) -> int:
        life = _Supervised(stop, lifeline)
        return _Process(loaded, sockets, addresses, life).run()

    asyncio.run(_check_secret(settings))
    supervisor = Supervisor(work, settings.workers, stop, beat_timeout=timeout)
    return supervisor.run(ready, sockets.close)


def _make_certificate(settings: Settings) -> None:
    """Create the certificate in a child process, before there are threads.

    In this process the library would stay in memory, 12 MB. Failures are ignored here, as
    `check_settings` reports them later.
    """
    if settings.tls_certificate or (settings.data_dir / "tls.pem").exists():
        return
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        check_settings(settings)
    finally:
        os._exit(0)


def _check_object_store(settings: Settings) -> None:
    """Raise `SettingError` or `ContentUnavailableError` if the object store cannot be used.

    The check is made in a child process: its library starts threads, and no process that has them
    may fork workers.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            os.write(writing, _problem_of(settings).encode()[:_MAX_PROBLEM])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        problem = pipe.read().decode(errors="replace")
    os.waitpid(child, 0)
    kind, _, text = problem.partition(":")
    address = settings.content_address
    if kind == _IS_WRONG:
        raise SettingError("content_store", str(address), "the settings", text)
    if kind != _IS_GOOD:
        raise ContentUnavailableError(text or f"{address}: the check has crashed")


def _problem_of(settings: Settings) -> str:
    """Return `good:`, or what is wrong with the object store and its kind."""
    address = settings.content_address
    try:
        store = open_store(address.key, address, settings.database_url)
        store.check()
    except SettingError as error:
        return f"{_IS_WRONG}:{error.allowed}"
    except SendbackError as error:
        return f"unavailable:{error}"
    return f"{_IS_GOOD}:"


def _warn(settings: Settings) -> None:
    if not (settings.verifies_at_once or settings.public_url):
        log.warning(
            "links in verification mails will begin with http://%s: set public_url to where the "
            "owners of addresses reach this server",
            settings.http_listen,
        )
    if settings.outbound.by_mx and "." not in settings.hostname:
        log.warning(
            "others refuse mail from a server that calls itself %s: set hostname to a full name",
            settings.hostname,
        )


async def _check_secret(settings: Settings) -> None:
    """Check the secret before workers start. Leave no thread, as the supervisor forks."""
    store = Store(settings.database_url, settings.data_dir, settings.content_address)
    try:
        await check_secret(store, Sealing(settings.secret_path, settings.secret))
    finally:
        store.close()


def prepare(settings: Settings) -> None:
    """Prepare the directory, the schema, the files and the limits before workers start.

    Raise `SettingError`, `SchemaError`, `StoreUnavailableError`.
    """
    check_data_directory(settings.data_dir)
    prepare_schema(settings.database_url)
    check_settings(settings)
    for warning in keep_private(settings.data_dir, settings.database_file):
        log.warning("%s", warning)
    raise_limit(settings)


class _Life(Protocol):
    """Where a process reports that it serves and is alive, and what stops it."""

    stop: StopRequest

    def ready(self) -> None:
        """Report that the process serves."""

    def show_life(self) -> None:
        """Report that the event loop runs; called every second."""

    def attach(self, stop_listening: Callable[[], None]) -> None:
        """Set up handlers; called once, in the event loop, when the listeners are open."""

    def is_closing(self) -> None:
        """Prepare for the last blocking steps."""


class _Alone:
    """The only process: its own watchdog monitors it."""

    def __init__(self, stop: StopRequest, ready: Callable[[], None], watchdog: Watchdog) -> None:
        self.stop = stop
        self.ready = ready
        self._watchdog = watchdog

    def attach(self, stop_listening: Callable[[], None]) -> None:  # noqa: ARG002 - see _Life
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTSTP, self._watchdog.pause)

    def show_life(self) -> None:
        self._watchdog.set()

    def is_closing(self) -> None:
        self._watchdog.end_in(_CLOSE_SECONDS)


class _Supervised:
    """A worker: it sends heartbeats to its supervisor, and ends when that is gone."""

    def __init__(self, stop: StopRequest, lifeline: Lifeline) -> None:
        self.stop = stop
        self._lifeline = lifeline
        self.ready = lifeline.ready
        self.show_life = lifeline.beat

    def attach(self, stop_listening: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        supervisor = self._lifeline.supervisor

        def gone() -> None:
            log.error("the supervisor is gone: this worker ends")
            loop.remove_reader(supervisor)
            stop_listening()
            # Work in progress has a second; then the next server may start.
            loop.call_later(_ORPHAN_SECONDS, os._exit, 1)
            Watchdog(0.0).end_in(2 * _ORPHAN_SECONDS)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(supervisor, gone)

    def is_closing(self) -> None:
        """Do nothing: the supervisor has a timeout."""


class _Process:
    """One process that serves: the only one, or a worker."""

    def __init__(
        self, loaded: LoadedSettings, sockets: Sockets, addresses: Addresses, life: _Life
    ) -> None:
        self._loaded = loaded
        self._settings = loaded.settings
        self._sockets = sockets
        self._addresses = addresses
        self._life = life

    def run(self) -> int:
        """Serve until a signal; return the exit code. Raise what prevents serving."""
        dump_stacks_on_signal()
        # A signal before the event loop handles it would break the loop.
        with self._life.stop.blocked():
            uvloop.run(self._main())
        return 0

    async def _main(self) -> None:
        stop = asyncio.Event()
        for number in self._life.stop.numbers:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._life.stop.numbers)
        beating = asyncio.create_task(beat(self._life.show_life))
        try:
            await self._serve(stop)
        finally:
            beating.cancel()

    async def _serve(self, stop: asyncio.Event) -> None:
        operation_model("SendBounce")  # loads the model before the first request
        addresses = self._addresses
        app = App(
            self._settings,
            http=addresses.http,
            smtp_address=addresses.smtp,
            loaded=self._loaded,
        )
        try:
            if await _unless(stop, _prepare_app(app)):
                # Objects that exist by now stay: the collector need not traverse them every
                # thousand requests.
                gc.collect()
                gc.freeze()
                await serve(app, self._sockets, self._life.ready, stop, self._life)
        finally:
            self._life.is_closing()
            app.close()


async def _prepare_app(app: App) -> None:
    await app.database_clock.measure()
    await app.check_secret()
    await app.store.write(AddAccount(app.settings.account_id, app.clock.now()))
    await app.faults.warn()
    if app.settings.database_file is None:
        await app.targets.warn_of_files()


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work; return False when `stop` was set before it was done."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
        return False
    await working
    return not stop.is_set()


def _write_whole(file: Path, content: str) -> None:
    """Write the file atomically, as other programs wait for it."""
    partial_file = file.with_name(f".{file.name}.{os.getpid()}")
    partial_file.write_text(content)
    partial_file.rename(file)
