"""`sendback inject`: deliver mails from files to a server, by SMTP.

By SMTP and not by the control API: mails may be larger than the bodies that the API accepts, every
SMTP server can be given, and what is tested is the way that mail takes.
"""

import smtplib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import getaddresses
from pathlib import Path
from typing import Annotated

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.files import MAX_OCTETS, read_octets
from sendback.cli.options import ConfigFile, DataDir, StoreOptions
from sendback.cli.output import printable, say
from sendback.config.readers import listen
from sendback.mail.headers import field_values, header_section

_TIMEOUT_SECONDS = 60.0
_BAR_WIDTH = 30
_MAX_OCTETS = 2**31  # the most that the setting smtp_max_size allows


def inject(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Mails, or directories with files *.eml; - is standard input."
        ),
    ],
    sender: Annotated[
        str | None,
        typer.Option(
            "--from", help='The reverse-path; "" is the null one.', show_default="From of the mail"
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to", help="A recipient; repeat the option for more.", show_default="To, Cc and Bcc"
        ),
    ] = None,
    smtp: Annotated[
        str | None,
        typer.Option(
            help="The SMTP server, HOST:PORT.", show_default="of the server on the data directory"
        ),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Deliver mails from files to a running server, as a mail server would.

    Prints the ID of each mail, each refusal with its reply, and the counts. The exit code is 1 if
    any was refused. Files with LF line ends are sent with CR LF.
    """
    host, port = _server(smtp, StoreOptions(config, data_dir, None, None))
    paths = list(_mails(files))
    if not paths:
        raise CommandFailedError("there is no file *.eml in these directories")
    refused = _Injection(host, port, sender, to or []).run(paths)
    if refused:
        raise typer.Exit(1)


def _server(smtp: str | None, options: StoreOptions) -> tuple[str, int]:
    if smtp is not None:
        try:
            found = listen(smtp)
        except ValueError as error:
            raise usage_error(f"--smtp: {error}") from None
        return found.host, found.port
    loaded, server = options.load()
    if server is None:
        raise usage_error(
            f"no server runs on {loaded.settings.data_dir}: give its address with --smtp, or name "
            "its data directory with --data-dir"
        )
    found = listen(server.smtp)
    return found.host, found.port


def _mails(files: Sequence[Path]) -> Iterator[Path]:
    for file in files:
        if file.is_dir():
            yield from sorted(path for path in file.glob("*.eml") if path.is_file())
        else:
            yield file


@dataclass(frozen=True, slots=True)
class _Envelope:
    sender: str
    recipients: list[str]


class _Injection:
    """Sends files over one connection, which is opened again after a failure."""

    def __init__(self, host: str, port: int, sender: str | None, to: Sequence[str]) -> None:
        self._address = host, port
        self._sender = sender
        self._to = list(to)
        self._client: smtplib.SMTP | None = None
        self._shows_bar = sys.stderr.isatty()

    def run(self, paths: Sequence[Path]) -> int:
        """Send all; return how many were refused, entirely or for some recipients."""
        refused = 0
        try:
            for number, path in enumerate(paths, 1):
                replies, accepted = self._send(path)
                refused += bool(replies)
                self._clear_bar()
                if accepted:
                    say(f"{path}: {accepted}")
                for reply in replies:
                    say(f"{path}: {reply}", err=True)
                self._draw_bar(number, len(paths))
        finally:
            self._clear_bar()
            if self._client is not None:
                self._client.close()
        say(f"{len(paths) - refused} accepted, {refused} refused")
        return refused

    def _send(self, path: Path) -> tuple[list[str], str]:
        """Return the refusals, and the reply's text if the mail was accepted."""
        # Only regular files have a size. Of others, such as /dev/zero, no more is read than usual.
        size = path.stat().st_size if path.is_file() else 0
        if size > _MAX_OCTETS:
            return ["the file is too large for a mail"], ""
        content = read_octets(path, max(size, MAX_OCTETS))
        if b"\r\n" not in content:
            content = content.replace(b"\n", b"\r\n")
        envelope = self._envelope(content)
        if not envelope.recipients:
            return ["it names no recipient: give --to"], ""
        try:
            return self._deliver(envelope, content)
        except (smtplib.SMTPException, OSError) as error:
            self._client = None
            if isinstance(error, smtplib.SMTPResponseException):
                return [_reply(error.smtp_code, error.smtp_error)], ""
            host, port = self._address
            raise CommandFailedError(f"the SMTP server {host}:{port}: {error}") from None

    def _envelope(self, content: bytes) -> _Envelope:
        header = header_section(content)
        sender = self._sender
        if sender is None:
            sender = next(iter(_addresses(header, "Sender", "From")), "")
        return _Envelope(sender, self._to or _addresses(header, "To", "Cc", "Bcc"))

    def _deliver(self, envelope: _Envelope, content: bytes) -> tuple[list[str], str]:
        client = self._connected()
        texts = (envelope.sender, *envelope.recipients)
        options = [] if content.isascii() else ["BODY=8BITMIME"]
        if not all(text.isascii() for text in texts):
            options.append("SMTPUTF8")
            client.command_encoding = "utf-8"
        code, text = client.mail(envelope.sender, options)
        if code >= 400:  # noqa: PLR2004 - RFC 5321 §4.2.1
            client.rset()
            return [_reply(code, text)], ""
        replies = []
        for recipient in envelope.recipients:
            code, text = client.rcpt(recipient)
            if code >= 400:  # noqa: PLR2004
                replies.append(f"{printable(recipient)}: {_reply(code, text)}")
        if len(replies) == len(envelope.recipients):
            client.rset()
            return replies, ""
        code, text = client.data(content)
        if code >= 400:  # noqa: PLR2004
            return [*replies, _reply(code, text)], ""
        return replies, _reply(code, text)

    def _connected(self) -> smtplib.SMTP:
        if self._client is None:
            self._client = smtplib.SMTP(*self._address, timeout=_TIMEOUT_SECONDS)
            self._client.ehlo()
        return self._client

    def _draw_bar(self, done: int, total: int) -> None:
        if self._shows_bar and total > 1:
            filled = _BAR_WIDTH * done // total
            bar = "#" * filled + "." * (_BAR_WIDTH - filled)
            typer.echo(f"\r[{bar}] {done}/{total}", err=True, nl=False)

    def _clear_bar(self) -> None:
        if self._shows_bar:
            typer.echo("\r\x1b[K", err=True, nl=False)


def _addresses(header: bytes, *names: str) -> list[str]:
    values = [value.decode("utf-8", "replace") for n in names for value in field_values(header, n)]
    return [address for _, address in getaddresses(values) if address]


def _reply(code: int, text: bytes | str) -> str:
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {printable(shown.replace(chr(10), ' '))}"
