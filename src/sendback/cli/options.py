"""Options that several commands share, and the settings that they lead to."""

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sendback.cli.failures import CommandFailedError
from sendback.config.loading import LoadedSettings, load
from sendback.config.settings import SettingError, Settings

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
    """Return the settings; flags come before all other sources. Raise `SettingError`."""
    return load(flags, file=config)


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
        may_create: bool = False,
    ) -> T:
        """Return what `work` returns on the services of the store; the server need not run.

        `--account` overrides the setting `account_id`. Without `may_create`, raise
        `CommandFailedError` if there is no data directory.
        """
        flags = {"data_dir": self.data_dir, "database": self.database, "account_id": self.account}
        settings = load_settings(self.config, **flags).settings
        if not may_create and not settings.data_dir.is_dir():
            raise CommandFailedError(
                f"there is no data directory {settings.data_dir}: start `sendback serve`, or name "
                "another with --data-dir"
            )
        from sendback.app import App
        from sendback.store.engine.store import prepare_schema

        os.umask(0o077)  # mail and keys: readable by this user only
        _make_folder(settings.data_dir)
        prepare_schema(settings.database_url)

        async def main() -> T:
            app = App(settings)
            try:
                return await work(app, settings)
            finally:
                app.close()

        return asyncio.run(main())


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        allowed = f"a directory that can be created and written to ({error.strerror})"
        raise SettingError("data_dir", str(folder), "the settings", allowed) from None


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
