"""`sendback db`: migrate and check the database."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import ConfigFile, Database, DataDir, Json, load_settings
from sendback.cli.output import print_fields, print_json, print_rows, printable, say
from sendback.config.settings import Settings

app = typer.Typer(help="Migrate and check the database.", no_args_is_help=True)


@app.command("create")
def create(data_dir: DataDir = None, database: Database = None, config: ConfigFile = None) -> None:
    """Create the data directory and an empty database, to prepare them before the first start.

    `sendback serve` does this itself; other commands do not. An existing database is not changed.
    """
    loaded = load_settings(config, data_dir=data_dir, database=database)
    settings = loaded.settings
    from sendback.clock import SystemClock
    from sendback.data_directory import check_data_directory
    from sendback.store.access.accounts import AddAccount
    from sendback.store.engine.store import prepare_schema, transact

    os.umask(0o077)  # mail and keys: readable by this user only
    check_data_directory(settings.data_dir)
    prepare_schema(settings.database_url)
    account = AddAccount(settings.account_id, SystemClock().now())
    transact(settings.database_url, account, writes=True)
    typer.echo(f"The store in {settings.data_dir.absolute()} is ready.")


Contract = Annotated[
    bool,
    typer.Option(
        "--contract", help="Also remove what only older versions use; none may serve any more."
    ),
]


@app.command("upgrade")
def upgrade(
    contract: Contract = False,
    data_dir: DataDir = None,
    database: Database = None,
    config: ConfigFile = None,
) -> None:
    """Migrate the database to the schema of this version, while older servers continue.

    Run it before the first server of this version starts, and with --contract after the last
    older one has stopped. A schema before 0008 needs all servers stopped. When it is interrupted,
    run it again.
    """
    settings = load_settings(config, data_dir=data_dir, database=database).settings
    from sendback.store.engine.schema import Kind, pending, upgrade_schema
    from sendback.store.engine.store import transact
    from sendback.store.engine.versions import read_schema

    url = settings.database_url
    before, after = upgrade_schema(url, contract=contract, report=lambda line: say(line, err=True))
    if before == after:
        typer.echo(f"The database has schema {after}, which this version can use.")
    else:
        typer.echo(f"The database is migrated from schema {before or 'none'} to {after}.")
    left = pending(transact(url, read_schema, writes=False))
    if any(migration.kind == Kind.CONTRACT for migration in left):
        typer.echo(
            "Run `sendback db upgrade --contract` once no server of an older version is left."
        )


UPGRADE_NEEDED = 3
CONTRACTION_PENDING = 4


@app.command("status")
def status(
    data_dir: DataDir = None,
    database: Database = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show the schema, what an upgrade would do, the servers on the database, and its size.

    Exit code 0: nothing is to be done. 3: `sendback db upgrade` is needed (or `db create`, if the
    database is empty) before this version serves. 4: only `db upgrade --contract` is left. 1: this
    version cannot use the database, or it is not available. Numbers of rows are estimates.
    """
    settings = load_settings(config, data_dir=data_dir, database=database).settings
    _existing_file(settings)
    from sendback.redaction import shown_url
    from sendback.store.engine.schema import Kind
    from sendback.store.engine.status import read_status

    found = read_status(settings.database_url)
    fields = {"database": shown_url(settings.database_url), **found.fields()}
    if as_json:
        print_json(fields)
    else:
        _print_status(fields)
    kinds = {migration.kind for migration in found.pending}
    if kinds - {Kind.CONTRACT}:
        raise typer.Exit(UPGRADE_NEEDED)
    if kinds:
        raise typer.Exit(CONTRACTION_PENDING)


def _print_status(fields: Mapping[str, Any]) -> None:
    lists = {"pending", "nodes", "tables"}
    print_fields(
        {name: value for name, value in fields.items() if name not in lists}, as_json=False
    )
    for name, columns in (
        ("pending", ("migration", "kind", "title")),
        ("nodes", ("name", "version", "schema", "started_at", "seen_at")),
        ("tables", ("table", "rows", "octets")),
    ):
        if fields[name]:
            say("")
            print_rows(fields[name], columns, as_json=False)


Source = Annotated[str, typer.Argument(metavar="SOURCE-URL", help="The database to copy.")]
Target = Annotated[str, typer.Argument(metavar="TARGET-URL", help="The database to fill.")]
Replace = Annotated[bool, typer.Option("--replace", help="Delete what the target has.")]
WhileServing = Annotated[
    bool,
    typer.Option(
        "--while-serving", help="Copy although servers use the source; later changes are missing."
    ),
]


@app.command("copy")
def copy(
    source: Source,
    target: Target,
    replace: Replace = False,
    while_serving: WhileServing = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Copy an installation to another database: from SQLite to PostgreSQL, or back.

    Copies all rows, and all mail that is in files of the data directory (--data-dir, the source's)
    into the database, then compares both. Servers must be stopped. A copy that was interrupted is
    begun anew by the same command; until one is complete, no server starts on the target. The
    servers of the target need the same secret: copy secret.key, or set SENDBACK_SECRET.
    """
    settings = load_settings(config, data_dir=data_dir).settings
    source, target = _database(source), _database(target)
    from sendback.crypto.sealing import Sealing
    from sendback.store.engine.copying import CopyOptions, copy_installation

    os.umask(0o077)  # mail and keys: readable by this user only
    if not settings.secret and not settings.secret_path.is_file():
        raise CommandFailedError(
            f"there is no {settings.secret_path}: name the data directory of the source with "
            "--data-dir, or give its secret as SENDBACK_SECRET"
        )
    options = CopyOptions(
        files=settings.data_dir / "blobs",
        fingerprint=Sealing(settings.secret_path, settings.secret).fingerprint,
        replace=replace,
        while_serving=while_serving,
    )
    copied = copy_installation(source, target, options, lambda line: say(line, err=True))
    for name in copied.missing_files:
        say(f"Warning: the file {settings.data_dir / 'blobs' / name} is missing.", err=True)
    if copied.replaced_nul:
        say(f"Warning: NUL was replaced in {copied.replaced_nul} rows.", err=True)
    seconds = max(copied.seconds, 0.001)
    typer.echo(
        f"Copied {copied.rows} rows, {copied.octets / 1e6:.1f} MB, in {seconds:.1f} s "
        f"({copied.rows / seconds:.0f} rows/s, {copied.octets / 1e6 / seconds:.1f} MB/s); "
        "counts and checksums agree."
    )


def _database(url: str) -> str:
    """Return the URL of a database. Raise `BadParameter`."""
    from sendback.config.readers import database

    try:
        if url:
            return database(url)
    except ValueError as error:
        raise usage_error(f"{url!r} is not {error}") from None
    raise usage_error("the URL of a database is missing")


@app.command("check")
def check(data_dir: DataDir = None, database: Database = None, config: ConfigFile = None) -> None:
    """Check the whole database, and that every message body exists. Servers may be running.

    Prints a line for each problem. Exit code 1 if there is one.
    """
    settings = load_settings(config, data_dir=data_dir, database=database).settings
    file = _existing_file(settings)
    from sendback.store.engine.integrity import check_store

    problems = check_store(settings.database_url, settings.data_dir)
    for problem in problems:
        typer.echo(printable(problem))
    if problems:
        saving = f", or save what can be read with `sqlite3 {file} .recover`" if file else ""
        raise CommandFailedError(
            f"{len(problems)} problems in {file or 'the database'}: stop all servers and put a "
            f"copy in its place{saving}"
        )
    typer.echo(f"{file or 'The database'} is sound, and every message body exists.")


def _existing_file(settings: Settings) -> Path | None:
    """Return the database's file, if it has one. Raise `CommandFailedError` if it is missing."""
    file = settings.database_file
    if file is not None and not file.is_file():
        raise CommandFailedError(f"there is no database {file}: name its directory with --data-dir")
    return file
