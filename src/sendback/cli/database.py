"""`sendback db`: the database's schema."""

import typer

from sendback.cli.options import ConfigFile, Database, DataDir, load_settings

app = typer.Typer(help="The database's schema.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(data_dir: DataDir = None, database: Database = None, config: ConfigFile = None) -> None:
    """Bring the database to this version's schema. Stop all servers first; keep a copy."""
    settings = load_settings(config, data_dir=data_dir, database=database).settings
    from sendback.store.migrate import upgrade_schema

    before, after = upgrade_schema(settings.database_url)
    if before == after:
        typer.echo(f"The database has schema {after}, as this version needs.")
    else:
        typer.echo(f"The database went from schema {before or 'none'} to {after}.")
