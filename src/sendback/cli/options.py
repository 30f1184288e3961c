"""Options that several commands share, and the settings that they lead to."""

import asyncio
import inspect
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sendback.cli.failures import CommandFailedError
from sendback.cli.output import say
from sendback.config.loading import LoadedSettings, describe_unknown, load
from sendback.config.settings import Settings
from sendback.running_server import RunningServer, running_server

if TYPE_CHECKING:
    from sendback.app import App

T = TypeVar("T")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="The settings file.", show_default="sendback.toml, if it exists"),
]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", help="The data directory.", show_default="./sendback-data"),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database", help="The database URL.", show_default="SQLite in the data directory"
    ),
]
Account = Annotated[
    str | None,
    typer.Option("--account", help="The account ID, 12 digits.", show_default="from account_id"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="Print at most so many.")
]


def load_settings(config: Path | None, **flags: str | None) -> LoadedSettings:
    """Return the settings; flags come before all other sources. Raise `SettingError`.

    Variables of the environment that look like settings and are none are reported.
    """
    loaded = load(flags, file=config)
    for name in loaded.unknown:
        say(f"Warning: {describe_unknown(name)}.", err=True)
    return loaded


def load_for_store(
    config: Path | None, **flags: str | None
) -> tuple[LoadedSettings, RunningServer | None]:
    """Return the settings for work on a data directory, and the server that uses it, if any.

    What is not given is as the server has it. Raise `CommandFailedError`, `SettingError`.
    """
    loaded = load_settings(config, **flags)
    server = running_server(loaded.settings.data_dir)
    if server is None:
        return loaded, None
    if server.database and loaded.origins["database"] == "default":
        raise CommandFailedError(
            f"the server in {loaded.settings.data_dir} uses the database {server.database}: give "
            "its URL with --database, or as SENDBACK_DATABASE"
        )
    return load(flags, file=config, server=server.settings), server


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The values of the options that select a store and an account."""

    config: Path | None
    data_dir: str | None
    database: str | None
    account: str | None

    def run(
        self,
        work: Callable[["App", Settings], Coroutine[Any, Any, T]],
        *,
        decides: bool = False,
    ) -> T:
        """Return what `work` returns on the services of the store; the server need not run.

        `--account` overrides the setting `account_id`; the account must exist. With `decides` the
        result depends on settings such as `outbound`: print a note if there is no server to take
        them from. Raise `CommandFailedError` if there is no store.
        """
        loaded, server = self.load()
        settings = loaded.settings
        check_store_exists(settings)
        if decides and server is None and loaded.origins["outbound"] == "default":
            say(
                f"Note: no server runs on {settings.data_dir}. The settings of this command are "
                f"used: outbound {settings.outbound}.",
                err=True,
            )
        return self.run_on(settings, work)

    def load(self) -> tuple[LoadedSettings, RunningServer | None]:
        """Return the settings, and the server that uses the data directory, if any."""
        flags = {"data_dir": self.data_dir, "database": self.database, "account_id": self.account}
        return load_for_store(self.config, **flags)

    def run_on(
        self,
        settings: Settings,
        work: Callable[["App", Settings], Coroutine[Any, Any, T]],
    ) -> T:
        """Return what `work` returns on the services of these settings.

        Raise `CommandFailedError` if `--account` is given and does not exist.
        """
        from sendback.app import App
        from sendback.store.engine.store import prepare_schema

        os.umask(0o077)  # mail and keys: readable by this user only
        # Its warnings are for servers: the error that this command ends with has the same reason.
        logging.getLogger("sendback.store").setLevel(logging.ERROR)
        prepare_schema(settings.database_url)

        async def main() -> T:
            app = App(settings)
            app.event_exchange.send_all()
            try:
                await app.database_clock.measure()
                if self.account is not None:
                    await _check_account(app, settings.account_id)
                result = await work(app, settings)
                await app.store.channel.drain()
                return result
            finally:
                app.close()

        return asyncio.run(main())


def check_store_exists(settings: Settings) -> None:
    """Raise `CommandFailedError` if there is no data directory, or no database in it.

    Only `serve` and `db create` make them: a command in the wrong directory must not. With a
    database on a server there need be no directory: the command may run on a machine without node.
    """
    file = settings.database_file
    if file is None:
        return
    advice = "start `sendback serve`, or name another with --data-dir"
    if settings.data_dir.is_file():
        raise CommandFailedError(f"{settings.data_dir} is a file, not a data directory: {advice}")
    if not settings.data_dir.is_dir():
        raise CommandFailedError(f"there is no data directory {settings.data_dir}: {advice}")
    if not file.exists():
        raise CommandFailedError(f"there is no database in {file.parent}: {advice}")


async def _check_account(app: "App", account_id: str) -> None:
    known = {account.account_id for account in await app.accounts.list()}
    if account_id not in known:
        from sendback.service.access.accounts import no_account

        raise CommandFailedError(f"{no_account(account_id)}, or see `sendback accounts list`")


_STORE_OPTIONS = {
    "data_dir": DataDir,
    "database": Database,
    "account": Account,
    "config": ConfigFile,
}


def on_store(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `StoreOptions`, as its argument `options`."""
    return with_options(command, _STORE_OPTIONS, "options", StoreOptions)


def with_options(
    command: Callable[..., None],
    options: Mapping[str, Any],
    name: str,
    make: Callable[..., object],
) -> Callable[..., None]:
    """Give a command more options; `make` builds one argument, `name`, from their values."""
    signature = inspect.signature(command)
    own = [entry for entry in signature.parameters.values() if entry.name != name]
    shared = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for option, kind in options.items()
    ]

    @wraps(command)
    def run(**arguments: Any) -> None:
        given = {option: arguments.pop(option) for option in options}
        command(**arguments, **{name: make(**given)})

    run.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    own_kinds = {key: kind for key, kind in command.__annotations__.items() if key != name}
    run.__annotations__ = {**own_kinds, **options}
    return run
