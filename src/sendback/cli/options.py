"""Options that several commands share, and how they become settings."""

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
    typer.Option("--config", help="Settings file.", show_default="sendback.toml, if it is there"),
]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", help="Where everything is kept.", show_default="./sendback-data"),
]
Database = Annotated[
    str | None,
    typer.Option("--database", help="Database URL.", show_default="SQLite in the data directory"),
]
Account = Annotated[
    str | None,
    typer.Option("--account", help="Whose; 12 digits.", show_default="the setting account_id"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Limit = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="How many at most.")
]


def load_settings(config: Path | None, **flags: str | None) -> LoadedSettings:
    """Raises `SettingError`."""
    return load(flags, file=config)


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The store that a command works on, and the account: what the shared options name."""

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
        """Runs `work` on the services of the store, without serving.

        The account of the option takes the place of the setting `account_id`.
        """
        flags = {"data_dir": self.data_dir, "database": self.database, "account_id": self.account}
        settings = load_settings(self.config, **flags).settings
        if not may_create and not settings.data_dir.is_dir():
            raise CommandFailedError(
                f"there is nothing in {settings.data_dir}: start `sendback serve`, or name the "
                "directory with --data-dir"
            )
        from sendback.app import App
        from sendback.store.engine.store import prepare_schema

        os.umask(0o077)  # what is written here (mail, keys) is nobody else's to read
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
        allowed = f"a directory that can be made and written to ({error.strerror})"
        raise SettingError("data_dir", str(folder), "the settings", allowed) from None


_STORE_OPTIONS = {
    "data_dir": DataDir,
    "database": Database,
    "account": Account,
    "config": ConfigFile,
}


def on_store(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that name a store and an account, as its argument `options`."""
    return with_options(command, _STORE_OPTIONS, "options", StoreOptions)


def with_options(
    command: Callable[..., None],
    options: Mapping[str, Any],
    name: str,
    make: Callable[..., object],
) -> Callable[..., None]:
    """Gives a command more options, which reach it as one argument: what `make` makes of them."""
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
