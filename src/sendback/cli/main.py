"""The command line: the tree of commands, and what becomes of errors.

Exit codes: 0 done, 1 it did not work, 2 the command or a setting was wrong.
"""

import sys
from typing import Annotated

import typer

from sendback import __version__
from sendback.cli import (
    accounts,
    bounce,
    config,
    database,
    demo,
    doctor,
    dsn,
    identities,
    keys,
    messages,
    outbox,
    policies,
    rules,
    serve,
)

app = typer.Typer(
    name="sendback",
    help=(
        "Receives mail by SMTP and bounces it the way Amazon SES does.\n\n"
        "Start with `sendback demo` (one mail, one SendBounce, one bounce, all on this machine), "
        "then `sendback serve`."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes 0.2 s to draw the help that plain text gives as well
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("bounce")(bounce.bounce)
app.command("doctor")(doctor.doctor)
app.add_typer(messages.app, name="messages")
app.add_typer(outbox.app, name="outbox")
app.add_typer(rules.app, name="rules")
app.add_typer(identities.app, name="identities")
app.add_typer(policies.app, name="policies")
app.add_typer(accounts.app, name="accounts")
app.add_typer(accounts.users, name="users")
app.add_typer(keys.app, name="keys")
app.add_typer(dsn.app, name="dsn")
app.add_typer(config.app, name="config")
app.add_typer(database.app, name="db")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sendback {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Receives mail by SMTP and bounces it the way Amazon SES does."""


def main() -> None:
    """The entry point."""
    from sendback.cli.failures import explain

    try:
        app()
    except Exception as error:
        explanation = explain(error)
        if explanation is None:
            raise
        text, code = explanation
        typer.echo(f"sendback: {text}", err=True)
        sys.exit(code)
