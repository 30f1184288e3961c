"""Serving: what runs the parts, in one process or several.

One process serves SMTP, HTTP and delivery on one event loop. With several workers, each is such
a process; they share the ports (SO_REUSEPORT) and the store, and nothing else.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import uvicorn
import uvloop

from sendback.api.connections import HttpConnection
from sendback.api.http import http_app
from sendback.api.pages import VerificationPages
from sendback.app import App, check_settings
from sendback.aws.model import operation_model
from sendback.config import SettingError, Settings
from sendback.descriptors import raise_limit
from sendback.listening import BACKLOG, Addresses, Sockets, bind
from sendback.processes import Supervisor
from sendback.service.private_files import keep_private
from sendback.setting_texts import Listen
from sendback.store.accounts import AddAccount
from sendback.store.store import prepare_schema

log = logging.getLogger(__name__)

_SHUTDOWN_SECONDS = 15.0


class _HttpServer(uvicorn.Server):
    """uvicorn without its own signal handling: the process has one, in `run`."""

    def __init__(self, app: App) -> None:
        config = uvicorn.Config(
            http_app(
                app.dispatcher,
                app.readiness.is_ready,
                app.outside.signer.certificate_at,
                VerificationPages(app.verification, app.settings.hostname),
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
            timeout_graceful_shutdown=int(_SHUTDOWN_SECONDS),
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: App, sockets: Sockets, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Serves until `stop` is set, then lets everything that was accepted come to its end."""
    loop = asyncio.get_running_loop()
    smtp = await loop.create_server(app.smtp, sock=sockets.smtp, backlog=BACKLOG)
    http = _HttpServer(app)
    serving_http = asyncio.create_task(http.serve(sockets=[sockets.http]))
    delivering = asyncio.create_task(app.delivery.run())
    processing = asyncio.create_task(app.processing.run())
    background = [
        asyncio.create_task(app.housekeeping.run()),
        asyncio.create_task(app.identity_checks.run()),
    ]
    while not http.started and not serving_http.done():
        await asyncio.sleep(0.002)
    ready()
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait(
        {stopping, serving_http, delivering, processing}, return_when=asyncio.FIRST_COMPLETED
    )
    stopping.cancel()
    smtp.close()
    await app.smtp.shut_down(_SHUTDOWN_SECONDS)
    # Functions that are just being called may call the API: it stops behind them.
    app.processing.stop()
    await processing
    await app.mail_checks.close()
    await app.outside.close()
    http.should_exit = True
    await serving_http
    for task in background:
        task.cancel()
    app.identity_checks.close()
    app.delivery.stop()
    await delivering


def run(settings: Settings, ready_file: Path | None, announce: Callable[[Addresses], None]) -> int:
    """Serves until SIGTERM or SIGINT; answers the exit code.

    Raises `SettingError`, `SchemaError`, `StoreUnavailableError` before anything is served.
    """
    os.umask(0o077)  # what is written here (mail, keys) is nobody else's to read
    logging.basicConfig(
        level=settings.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    prepare(settings)
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
    sockets, addresses = bind(settings)

    def ready() -> None:
        announce(addresses)
        if ready_file is not None:
            _write_whole(ready_file, addresses.to_json())

    if settings.workers == 1:
        return _run_worker(settings, sockets[0], addresses.http, ready)
    workers = [partial(_run_worker, settings, own, addresses.http) for own in sockets]
    return Supervisor(workers).run(ready)


def prepare(settings: Settings) -> None:
    """Makes what must be there before the first worker runs.

    Raises `SettingError`, `SchemaError`, `StoreUnavailableError`.
    """
    _check_data_dir(settings.data_dir)
    prepare_schema(settings.database_url)
    check_settings(settings)
    for warning in keep_private(settings.data_dir, settings.database_file):
        log.warning("%s", warning)
    raise_limit(settings)


def _check_data_dir(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        allowed = f"a directory that can be written to ({error})"
        raise SettingError("data_dir", str(folder), "the settings", allowed) from None


def _run_worker(
    settings: Settings, sockets: Sockets, http: Listen, ready: Callable[[], None]
) -> int:
    async def main() -> None:
        operation_model("SendBounce")  # the model is read before the first request needs it
        app = App(settings, http=http)
        try:
            await app.check_secret()
            await app.store.write(AddAccount(settings.account_id, app.clock.now()))
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            # What is there by now stays: the collector need not walk through it for every
            # thousand requests.
            gc.collect()
            gc.freeze()
            await serve(app, sockets, ready, stop)
        finally:
            app.close()

    uvloop.run(main())
    return 0


def _write_whole(file: Path, content: str) -> None:
    """Appears whole or not at all: somebody waits for it."""
    partial_file = file.with_name(f".{file.name}.{os.getpid()}")
    partial_file.write_text(content)
    partial_file.rename(file)
