"""`sendback serve`: run the server."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sendback.cli.failures import usage_error
from sendback.cli.options import ConfigFile, Database, DataDir, load_settings
from sendback.cli.output import say
from sendback.config.loading import LoadedSettings
from sendback.stop_signals import StopRequest

if TYPE_CHECKING:
    from sendback.net.listening import Addresses


def serve(
    http_listen: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of the API; port 0 chooses a free port.", show_default="127.0.0.1:4579"
        ),
    ] = None,
    smtp_listen: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT for mail; port 0 chooses a free port.", show_default="127.0.0.1:2525"
        ),
    ] = None,
    outbound: Annotated[
        str | None,
        typer.Option(
            help="capture stores bounces and sends nothing; mx sends them to each domain's mail "
            "servers, smtp://[USER:PASSWORD@]HOST:PORT through that relay.",
            show_default="capture",
        ),
    ] = None,
    data_dir: DataDir = None,
    database: Database = None,
    workers: Annotated[
        str | None, typer.Option(help="Number of worker processes.", show_default="1")
    ] = None,
    hostname: Annotated[
        str | None,
        typer.Option(
            help="The host name of this server, in SMTP and in bounces.",
            show_default="the machine's name",
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="One of debug, info, warning, error.", show_default="info")
    ] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with the actual addresses, written when the server is ready."
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Run the server: receive mail by SMTP, serve the SES API, deliver bounces.

    By default it listens on loopback only, accepts the access key test/test, and sends nothing.
    All options but --config and --ready-file are settings, which can also be given in the
    environment (SENDBACK_OUTBOUND, …) or in sendback.toml; `sendback config show` lists them all.
    Ctrl-C or SIGTERM stops the server.
    """
    stop = StopRequest()
    stop.exit_at_once()
    loaded = load_settings(
        config,
        http_listen=http_listen,
        smtp_listen=smtp_listen,
        outbound=outbound,
        data_dir=data_dir,
        database=database,
        workers=workers,
        hostname=hostname,
        log_level=log_level,
    )
    if ready_file is not None and not ready_file.absolute().parent.is_dir():
        raise usage_error(f"--ready-file: there is no directory {ready_file.absolute().parent}")
    from sendback.running_server import remove_running
    from sendback.serving import run

    announce = functools.partial(_announce, loaded)
    try:
        code = run(loaded, ready_file, announce, stop)
    finally:
        remove_running(loaded.settings.data_dir)
    raise typer.Exit(code)


def _announce(loaded: LoadedSettings, addresses: "Addresses") -> None:
    """Print the addresses, and write the file from which other commands learn the settings."""
    from sendback.running_server import write_running

    write_running(loaded, addresses)
    settings = loaded.settings
    has_key = settings.development_key
    key = "test / test (loopback only)" if has_key else "of your own: sendback keys create"
    delivery = f"sent through {settings.outbound}"
    if settings.outbound.captures:
        delivery = "stored here, never sent: sendback outbox list"
    elif settings.outbound.by_mx:
        delivery = "sent to each domain's mail servers: sendback doctor"
    endpoint = f"http://{addresses.http}"
    say(
        f"""Sendback serves.

  SES API     {endpoint}   region {settings.region}, account {settings.account_id}
  SMTP        {addresses.smtp}
  console     {endpoint}/console/
  bounces     {delivery}
  data        {settings.data_dir.absolute()}
  access key  {key}

Try it, in another terminal:

{_example(endpoint, str(addresses.smtp), settings.region, has_key=has_key)}
"""
    )


def _example(endpoint: str, smtp: str, region: str, *, has_key: bool) -> str:
    """Return commands to copy; no line is longer than 80 characters."""
    key = "test" if has_key else "YOUR-KEY"
    secret = "test" if has_key else "YOUR-SECRET"
    return f"""\
export AWS_ACCESS_KEY_ID={key} AWS_SECRET_ACCESS_KEY={secret}
export AWS_DEFAULT_REGION={region} AWS_ENDPOINT_URL_SES={endpoint}
aws ses verify-domain-identity --domain example.com
swaks --server {smtp} --from ann@sender.example --to bob@example.com
aws ses send-bounce --original-message-id THE-ID-IN-THE-250-REPLY \\
  --bounce-sender mailer-daemon@example.com --bounced-recipient-info-list \\
  Recipient=bob@example.com,BounceType=DoesNotExist"""
