"""`sendback doctor`: check DNS, TLS and outbound connections."""

import ipaddress
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import (
    Json,
    StoreOptions,
    check_store_exists,
    on_store,
)
from sendback.cli.output import print_json, printable, say

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.doctor.findings import Finding

_MARKS = {"good": "ok", "advice": "--", "problem": "!!", "skipped": "  "}


@on_store
def doctor(
    address: Annotated[
        list[str] | None,
        typer.Option(help="A public IP address of this server; repeat the option for more."),
    ] = None,
    probe: Annotated[
        str, typer.Option(help="A domain whose mail server is connected to, as a test of port 25.")
    ] = "gmail.com",
    outside: Annotated[
        bool | None,
        typer.Option(
            "--outside/--no-outside",
            help="Whether to test outbound connections: the relays, or the server of --probe.",
            show_default="unless outbound is capture",
        ),
    ] = None,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Check DNS, TLS and outbound connections, and print what to publish or change.

    Uses the settings of `sendback serve`. Exit code 1 if there is a problem.
    """
    for text in address or []:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise usage_error(f"--address must be an IP address, not {text!r}") from None
    _check_domain(probe)

    async def work(app: "App", settings: "Settings") -> "list[Finding]":
        from sendback.doctor.checks import Doctor

        connects = outside if outside is not None else not settings.outbound.captures
        return await Doctor(app, addresses=address or (), probe=probe, outside=connects).examine()

    found = _run(options, work)
    if as_json:
        print_json([{**asdict(finding), "advice": finding.advice or None} for finding in found])
    else:
        _print(found)
    if any(finding.verdict == "problem" for finding in found):
        raise typer.Exit(1)


def _run(
    options: StoreOptions, work: "Callable[[App, Settings], Coroutine[Any, Any, list[Finding]]]"
) -> "list[Finding]":
    """Run the checks; without a store, on a temporary one, as no store is created here."""
    loaded, server = options.load()
    settings = loaded.settings
    try:
        check_store_exists(settings)
    except CommandFailedError:
        say(f"Note: there is no store in {settings.data_dir}, so no domains are checked.", err=True)
        with tempfile.TemporaryDirectory(prefix="sendback-doctor-") as folder:
            certificate = settings.data_dir / "tls.pem"
            if certificate.is_file():
                shutil.copy(certificate, folder)
            temporary = replace(settings, data_dir=Path(folder), database="")
            return replace(options, account=None).run_on(temporary, work)
    if server is None:
        say(
            f"Note: no server runs on {settings.data_dir}: the settings are this command's.",
            err=True,
        )
    return options.run_on(settings, work)


def _check_domain(text: str) -> None:
    from sendback.mail.address import AddressError, parse_domain

    try:
        parse_domain(text)
    except AddressError as error:
        raise usage_error(f"--probe must be a domain: {error}") from None


def _print(found: "list[Finding]") -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        mark = _MARKS[finding.verdict.value]
        say(f"{mark}  {finding.check:{width}}  {printable(finding.found)}")
        if finding.advice:
            say(f"{'':{width + 6}}{printable(finding.advice)}")
