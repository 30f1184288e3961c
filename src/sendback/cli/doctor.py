"""`sendback doctor`: what stands between this server and other people's inboxes."""

import ipaddress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sendback.cli.failures import usage_error
from sendback.cli.options import Json, StoreOptions, on_store
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
        typer.Option(help="An IP address that others see this server as; may be repeated."),
    ] = None,
    probe: Annotated[
        str, typer.Option(help="The domain whose mail server is connected to, to try port 25.")
    ] = "gmail.com",
    outside: Annotated[
        bool | None,
        typer.Option(
            "--outside/--no-outside",
            help="Whether to connect to it.",
            show_default="unless outbound captures",
        ),
    ] = None,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Look at DNS, TLS and the way out, and say what to publish or change.

    Reads the same settings as `serve`. Exit code 1 when there is a problem.
    """
    for text in address or []:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise usage_error(f"--address is an IP address, not {text!r}") from None
    _check_domain(probe)

    async def work(app: "App", settings: "Settings") -> "list[Finding]":
        from sendback.doctor.checks import Doctor

        goes_out = outside if outside is not None else not settings.outbound.captures
        return await Doctor(app, addresses=address or (), probe=probe, outside=goes_out).examine()

    found = options.run(work, may_create=True)
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        _print(found)
    if any(finding.verdict == "problem" for finding in found):
        raise typer.Exit(1)


def _check_domain(text: str) -> None:
    from sendback.mail.address import AddressError, parse_domain

    try:
        parse_domain(text)
    except AddressError as error:
        raise usage_error(f"--probe is a domain: {error}") from None


def _print(found: "list[Finding]") -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        mark = _MARKS[finding.verdict.value]
        say(f"{mark}  {finding.check:{width}}  {printable(finding.found)}")
        if finding.advice:
            say(f"{'':{width + 6}}{printable(finding.advice)}")
