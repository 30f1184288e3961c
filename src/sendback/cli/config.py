"""`sendback config`: show the settings in force."""

from dataclasses import fields

import typer

from sendback.cli.options import ConfigFile, DataDir, Json, load_for_store
from sendback.cli.output import print_rows
from sendback.config.loading import ENVIRONMENT_PREFIX
from sendback.config.settings import Settings

app = typer.Typer(help="Show the settings in force.", no_args_is_help=True)


@app.command("show")
def show(as_json: Json = False, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Print every setting with its value and the source of the value.

    If a server runs on the data directory, its settings are used for what is not given here.
    """
    loaded, _ = load_for_store(config, data_dir=data_dir)
    rows = [
        {
            "setting": entry.name,
            "value": loaded.texts[entry.name],
            "from": loaded.origins[entry.name],
            "environment": ENVIRONMENT_PREFIX + entry.name.upper(),
            "about": entry.metadata["about"],
        }
        for entry in fields(Settings)
    ]
    if as_json:
        rows = [{**row, "value": row["value"] or None} for row in rows]
    print_rows(rows, ("setting", "value", "from", "about"), as_json=as_json, drop=("about",))
