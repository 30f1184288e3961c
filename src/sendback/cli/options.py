"""Options that several commands share, and how they become settings."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sendback.cli.failures import CommandFailedError
from sendback.config import LoadedSettings, Settings, load

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
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")]


def load_settings(config: Path | None, **flags: str | None) -> LoadedSettings:
    """Raises `SettingError`."""
    return load(flags, file=config)


def with_app(
    config: Path | None,
    data_dir: str | None,
    database: str | None,
    work: Callable[["App", Settings], Coroutine[Any, Any, T]],
    *,
    may_create: bool = False,
) -> T:
    """Runs `work` on the services of the store that the options name, without serving."""
    settings = load_settings(config, data_dir=data_dir, database=database).settings
    if not may_create and not settings.data_dir.is_dir():
        raise CommandFailedError(
            f"there is nothing in {settings.data_dir}: start `sendback serve`, or name the "
            "directory with --data-dir"
        )
    from sendback.app import App
    from sendback.store.store import prepare_schema

    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    prepare_schema(settings.database_url)

    async def main() -> T:
        app = App(settings)
        try:
            return await work(app, settings)
        finally:
            app.close()

    return asyncio.run(main())
