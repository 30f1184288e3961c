"""`sendback tail`: print the events of a running server."""

import http.client
import json
import time
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.options import ConfigFile, DataDir, StoreOptions
from sendback.cli.output import printable, say
from sendback.redaction import shown_url, split_url

# A copy of the names in EventKind, whose import is slow. A test compares them.
KINDS = ("received", "refused", "step", "bounce", "attempt", "identity", "setting")
_RECONNECT_SECONDS = 1.0
# The server sends something at least every 15 s.
_TIMEOUT_SECONDS = 40.0
_MAX_LINE = 2**16


def tail(
    kind: Annotated[
        list[str] | None,
        typer.Option(help=f"Only events of this kind, repeatable: {', '.join(KINDS)}."),
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="Only events of this account.", show_default="all accounts")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Begin behind the event with this ID; 0: with all that are kept."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    endpoint_url: Annotated[
        str | None,
        typer.Option(
            help="The URL of the server.", show_default="of the server on the data directory"
        ),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Print what happens on a running server, live, until Ctrl-C.

    Mail that is received or refused, steps of rules, bounces, delivery attempts, identities. When
    the server is started again, the output continues. The server's setting inspection_token, if it
    has one, is needed here too: in the settings file, or as SENDBACK_INSPECTION_TOKEN.
    """
    for name in kind or ():
        if name not in KINDS:
            raise usage_error(f"--kind must be one of {', '.join(KINDS)}, not {name!r}")
    if since is not None and not (since.isascii() and since.isdigit()):
        raise usage_error("--since must be the ID of an event")
    loaded, server = StoreOptions(config, data_dir, None, None).load()
    url = endpoint_url or (f"http://{server.http}" if server else None)
    if url is None:
        raise usage_error(
            f"no server runs on {loaded.settings.data_dir}: give its URL with --endpoint-url, or "
            "name its data directory with --data-dir"
        )
    query = {"kind": ",".join(kind or ()), "account": account or ""}
    stream = EventStream(url, loaded.settings.inspection_token, query, since)
    for event in stream.events():
        say(json.dumps(event) if as_json else line_of(event))


class EventStream:
    """The events of a server, over as many connections as it takes."""

    def __init__(self, url: str, token: str, query: dict[str, str], since: str | None) -> None:
        try:
            parts = split_url(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError
            self._host, self._port = parts.hostname, parts.port
        except ValueError:
            text = f"--endpoint-url must be a URL (http://HOST:PORT), not {shown_url(url)}"
            raise usage_error(text) from None
        self._is_https = parts.scheme == "https"
        self._shown = shown_url(url)
        self._token = token
        self._query = {name: value for name, value in query.items() if value}
        self._last = since
        self._has_connected = False

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield events for ever. Raise `CommandFailedError` if the first connection fails."""
        while True:
            try:
                yield from self._follow()
            except (OSError, http.client.HTTPException) as error:
                if not self._has_connected:
                    reason = str(error) or "it does not answer"
                    text = f"{self._shown} cannot be reached: {reason}"
                    raise CommandFailedError(text) from None
            time.sleep(_RECONNECT_SECONDS)

    def _follow(self) -> Iterator[dict[str, Any]]:
        make = http.client.HTTPSConnection if self._is_https else http.client.HTTPConnection
        connection = make(self._host, self._port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request("GET", self._target(), headers=self._headers())
            response = connection.getresponse()
            if response.status != http.client.OK:
                self._refused(response)
                return
            self._has_connected = True
            yield from self._read(response)
        finally:
            connection.close()

    def _target(self) -> str:
        query = urlencode(self._query)
        return f"/_sendback/events?{query}" if query else "/_sendback/events"

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "text/event-stream"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if self._last is not None:
            headers["Last-Event-ID"] = self._last
        return headers

    def _refused(self, response: http.client.HTTPResponse) -> None:
        """Raise `CommandFailedError`, unless the server may accept the request later."""
        if response.status >= http.client.INTERNAL_SERVER_ERROR and self._has_connected:
            return
        try:
            text = json.loads(response.read(_MAX_LINE))["error"]["message"]
        except (ValueError, KeyError, TypeError):
            text = f"it answers {response.status} {response.reason}"
        raise CommandFailedError(f"{self._shown}: {text}")

    def _read(self, response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
        while line := response.readline(_MAX_LINE):
            name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(": ")
            if name == "id":
                self._last = value
            elif name == "data":
                try:
                    event = json.loads(value)
                except ValueError:
                    continue
                if isinstance(event, dict):
                    yield event


def line_of(event: dict[str, Any]) -> str:
    """Return the line about an event: date, kind, ID of the message, what happened."""
    if "lost" in event:
        return f"({printable(event['lost'])} events were lost: they came too fast)"
    kind = str(event.get("kind", ""))
    date = str(event.get("date", ""))[11:19]
    parts = [_ABOUT[kind](event)] if kind in _ABOUT else []
    return "  ".join([date, f"{kind:8}", printable(event.get("message_id")) or "-", *parts])


def _received(event: dict[str, Any]) -> str:
    to, subject = printable(event.get("to")), printable(event.get("subject"))
    return f"from {_path(event.get('from'))} to {to}: {subject} ({event.get('size')} octets)"


def _refused(event: dict[str, Any]) -> str:
    command = printable(event.get("command")) or "connect"
    to = printable(event.get("to"))
    about = f" to {to}" if to else ""
    return f"{printable(event.get('client'))} {command}{about}: {printable(event.get('reply'))}"


def _step(event: dict[str, Any]) -> str:
    what = f"rule {printable(event.get('rule'))}, {printable(event.get('action'))}"
    return f"{what}: {printable(event.get('outcome'))}, {printable(event.get('result'))}"


def _bounce(event: dict[str, Any]) -> str:
    of = printable(event.get("original_message_id"))
    return f"bounces {of} to {printable(event.get('recipient'))}, by {printable(event.get('by'))}"


def _attempt(event: dict[str, Any]) -> str:
    reply = printable(event.get("reply"))
    return f"to {printable(event.get('recipient'))}: {printable(event.get('outcome'))}, {reply}"


def _identity(event: dict[str, Any]) -> str:
    status = printable(event.get("status"))
    about = f" ({status})" if status else ""
    return f"{printable(event.get('identity'))} {printable(event.get('change'))}{about}"


def _setting(event: dict[str, Any]) -> str:
    return printable(event.get("change"))


def _path(address: Any) -> str:
    return printable(address) or "<>"


_ABOUT = {
    "received": _received,
    "refused": _refused,
    "step": _step,
    "bounce": _bounce,
    "attempt": _attempt,
    "identity": _identity,
    "setting": _setting,
}
