"""`Sendback`: a whole server in this process, for a test or a session of tests."""

import asyncio
import atexit
import contextlib
import difflib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from functools import cached_property
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sendback.app import App, check_settings
from sendback.clock import AdjustableClock, SystemClock
from sendback.config.loading import load
from sendback.config.settings import SettingError, Settings
from sendback.crypto.private_files import keep_private
from sendback.data_directory import check_data_directory, lock_data_directory
from sendback.faults.rules import FaultError
from sendback.net.listening import Addresses, bind
from sendback.service.rules.apply_setup import Applied
from sendback.service.rules.setup_file import parse_setup, read_setup
from sendback.service.rules.targets import BUCKET, FUNCTION, TOPIC
from sendback.store.engine.errors import RefusedError
from sendback.store.engine.store import prepare_schema
from sendback.store.rules.targets import PutTargets
from sendback.testing.contents import Contents
from sendback.testing.inbox import Inbox
from sendback.testing.mail import (
    DEFAULT_SENDER,
    Delivery,
    Message,
    addresses_in,
    check_addresses,
    compose,
    deliver,
    octets_of,
    verdict_options,
)
from sendback.testing.outgoing import (
    Bounces,
    Sent,
)
from sendback.testing.received import (
    ReceivedMails,
)
from sendback.testing.recorders import (
    TARGET,
    Bucket,
    Function,
    Handler,
    Recorders,
    Topic,
    with_recorders,
)
from sendback.testing.thread import ServerError, ServerThread

T = TypeVar("T")

# What differs from a server that is started by hand.
_DEFAULTS = {
    "http_listen": "127.0.0.1:0",
    "smtp_listen": "127.0.0.1:0",
    "hostname": "mx.example.com",
    "verification": "at_once",
    "send_bounce_rate": "0",
    "dns": "off",
}
_RULE_SET = "testing"
_SERVICES = ("ses", "s3")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


class Clock:
    """The clock of a server under test. It runs with the machine's, ahead of it by `advance`."""

    def __init__(self, server: "Sendback") -> None:
        self._server = server

    def now(self) -> datetime:
        """Return the server's date and time, in UTC."""
        return self._server.app.clock.now()

    def advance(self, by: timedelta | None = None, **units: float) -> None:
        """Move the clock forward by a timedelta, or by `hours=`, `minutes=`, … of one.

        Work in progress is waited for, for up to five seconds; then what is due by the new date
        begins: retries, expiry, the sweep. Signatures of requests are checked by the real clock.
        Raise `ValueError` for a negative duration, and for more than a hundred years in all.
        """
        moved = (by or timedelta(0)) + timedelta(**units)
        self._server.run(self._server.app.advance(moved))


class _TestingApp(App):
    """The services of a server whose functions and topics may be in the test."""

    recorders: Recorders

    @cached_property
    def action_backends(self) -> Any:
        backends = super().action_backends
        backends.ports = with_recorders(backends.ports, self.recorders)
        return backends


class Sendback:
    """A private server on free loopback ports, started by `with` (or `async with`).

    `settings` are those of `sendback serve` by name (docs/operations.md), as text or as Python
    values: `Sendback(send_bounce_rate=1, retention=timedelta(hours=48))`. Differences from its
    defaults: free ports, identities are verified at once, SendBounce without a rate limit, no DNS,
    verdicts that the test gives. The environment and `sendback.toml` are not read. The store is in
    a temporary directory, unless `data_dir` is given.

    Raise `SettingError` for a setting that is not usable, such as a port that is taken.
    """

    def __init__(self, *, clock: AdjustableClock | None = None, **settings: object) -> None:
        """`clock` replaces the machine's clock."""
        _check_names(settings)
        if str(settings.get("workers", 1)) != "1":
            raise SettingError("workers", settings["workers"], "the test", "1: a thread serves")
        self._given = {name: _text(value) for name, value in settings.items()}
        self._given_clock = clock
        self._process = os.getpid()
        self._has_stopped = False
        self._recorders = Recorders()
        self._clients: dict[str, Any] = {}
        self._stopping = contextlib.ExitStack()
        self._started: tuple[ServerThread, App, Addresses] | None = None
        self.clock = Clock(self)
        contents = self._contents = Contents(self.run, lambda: self.app)
        self.bounces = Bounces(contents.bounces, contents.describe_received)
        self.sent = Sent(contents.sent, contents.describe_received)
        self.received = ReceivedMails(contents.received)

    # --- its life -----------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the server; `with` does this. Raise `SettingError`, `ServerError`."""
        if self._started is not None:
            raise ServerError("this server has been started before: make another one")
        with contextlib.ExitStack() as undo:
            settings = self._settings(undo)
            sockets, addresses = bind(settings)
            undo.callback(sockets.close)

            def create() -> App:
                clock = self._given_clock or SystemClock(settings.clock_offset)
                app = _TestingApp(settings, clock, http=addresses.http, smtp_address=addresses.smtp)
                app.recorders = self._recorders
                return app

            thread = ServerThread(create, sockets)
            undo.callback(self._join_functions)
            undo.callback(thread.stop)
            app = thread.start()
            self._started = thread, app, addresses
            undo.callback(self._close_clients)
            self._stopping = undo.pop_all()
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Stop the server and delete its store; `with` does this. It may be called again.

        In a child process that was forked it does nothing.
        """
        if os.getpid() != self._process:
            return
        atexit.unregister(self.stop)
        self._has_stopped = True
        self._stopping.close()

    @property
    def is_running(self) -> bool:
        """Whether the server has started, and has not stopped."""
        return self._started is not None and not self._has_stopped

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    def reset(self) -> None:
        """Make the server empty again: no mail, no identity, no rule, no function or topic.

        Work in progress is cancelled, and the clock shows the real time again.
        """
        self.run(self.app.reset())
        self._recorders.clear()
        for collection in (self.bounces, self.sent, self.received):
            collection.forget_hidden()
        shutil.rmtree(self.app.settings.data_dir / "buckets", ignore_errors=True)

    def _settings(self, undo: contextlib.ExitStack) -> Settings:
        """Return the settings, with a directory and a schema to use them on."""
        given = {**_DEFAULTS, **self._given}
        if given.get("outbound") != "mx":
            given.setdefault("test_verdicts", "true")
        if "data_dir" not in given:
            given["data_dir"] = tempfile.mkdtemp(prefix="sendback-")
            undo.callback(shutil.rmtree, given["data_dir"], ignore_errors=True)
        settings = load(given, environ={}, reads_file=False).settings
        check_data_directory(settings.data_dir)
        undo.callback(os.close, lock_data_directory(settings.data_dir, shared=False))
        prepare_schema(settings.database_url)
        check_settings(settings)
        keep_private(settings.data_dir, settings.database_file)
        return settings

    def _join_functions(self) -> None:
        running = self._recorders.join()
        if running:
            raise ServerError(f"functions that do not end: {', '.join(running)}")

    def _close_clients(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    # --- where it is --------------------------------------------------------------------------

    @property
    def app(self) -> App:
        """The services of the server: for tests of Sendback itself, and not a stable interface."""
        return self._running()[1]

    @property
    def endpoint_url(self) -> str:
        """The URL of the API, such as http://127.0.0.1:40123."""
        return f"http://{self._running()[2].http}"

    @property
    def smtp(self) -> tuple[str, int]:
        """The host and port of the SMTP server."""
        address = self._running()[2].smtp
        return address.host, address.port

    @property
    def env(self) -> dict[str, str]:
        """The environment variables with which AWS SDKs of a child process use this server.

        They are for SES and for S3, with the development key. Other services are not affected.
        """
        app = self.app
        found = dict(self.run(app.function_environment(app.settings.account_id)))
        found.pop("AWS_ENDPOINT_URL", None)  # other services may have mocks of their own
        return found

    @property
    def ses(self) -> Any:
        """A boto3 client of this server's SES API. It does not repeat calls that failed."""
        return self.client("ses")

    def client(self, service: str) -> Any:
        """Return a boto3 client of this server for `ses` or `s3`, with the development key.

        Raise `ValueError` for another service.
        """
        if service not in _SERVICES:
            raise ValueError(f"the server has no {service}: it has {' and '.join(_SERVICES)}")
        found = self._clients.get(service)
        if found is None:
            import boto3  # noqa: PLC0415 - takes a quarter of a second, and not every test needs it
            from botocore.config import Config  # noqa: PLC0415

            env = self.env
            found = boto3.client(
                service,
                endpoint_url=self.endpoint_url,
                region_name=env["AWS_REGION"],
                aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
                config=Config(retries={"max_attempts": 0}),
            )
            self._clients[service] = found
        return found

    # --- what it does -------------------------------------------------------------------------

    def fail(self, at: str, **members: Any) -> str:
        """Let something fail on purpose from now on, and return the name of the fault.

        `at` is `connect`, `mail`, `rcpt`, `data`, `end`, `api`, `delivery` or `action`; the members
        are those of docs/faults.md, with `from_` for `from`:
        `server.fail("rcpt", recipient="bob@example.com", reply="451 4.7.1 Try later", first=2)`,
        `server.fail("api", operation="SendBounce", lost=True, only=1)`.

        Raise `FaultError` for a fault that could never take effect, and for a name that is taken.
        """
        given = {name.rstrip("_"): value for name, value in members.items()}
        faults = self.app.faults
        rule = faults.from_json({"at": at, **given})
        try:
            return self.run(faults.add(rule)).rule.name
        except RefusedError as error:
            raise FaultError(str(error)) from None

    def heal(self, name: str | None = None) -> None:
        """Remove a fault by its name, or all of them. Raise `FaultError` for an unknown name."""
        faults = self.app.faults
        if name is None:
            self.run(faults.clear())
            return
        try:
            self.run(faults.remove(name))
        except RefusedError as error:
            raise FaultError(str(error)) from None

    def describe(self) -> str:
        """Return what is on the server as text: received mail, the rules' steps, outgoing mail."""
        return self._contents.describe()

    def inbox(self, local_part: str | None = None, domain: str = "inbox.example.com") -> Inbox:
        """Return an address that receives mail: a new one unless `local_part` is given.

        Its domain is verified.
        """
        self.verify(domain)
        return Inbox(self, f"{local_part or f'inbox-{uuid.uuid4().hex[:12]}'}@{domain}")

    def verify(self, *identities: str) -> None:
        """Verify domains and addresses: mail for them is accepted, and bounces may come from them.

        Raise `SetupError` for a text that is neither, and `TypeError` for what is no text.
        """
        if not all(isinstance(identity, str) for identity in identities):
            raise TypeError('verify() takes texts: verify("example.com", "ann@example.org")')
        self.apply({"identities": list(identities)})

    def receive(
        self,
        message: Message | None = None,
        *,
        sender: str | None = None,
        recipients: Iterable[str] | str | None = None,
        subject: str = "Hello",
        text: str = "Hello!\n",
        verdicts: Mapping[str, str] | None = None,
        client_ip: str | None = None,
        helo: str = "mx.sender.example",
    ) -> str:
        """Deliver a mail to the server by SMTP and return its message ID.

        `message` is octets, an `EmailMessage` or a path; without one, a mail is composed of
        `subject` and `text`. Without `sender` and `recipients` the addresses in its header are
        used; a `sender` of "" is the null reverse-path. `verdicts` sets `spf`, `dkim`, `dmarc`,
        `spam`, `virus` (PASS, FAIL, GRAY, …) and `dmarc_policy` (none, quarantine, reject) of this
        message. `client_ip` is a loopback address to connect from, for IP filters.

        Raise `MailRefusedError` when it is refused, and `TypeError` without any recipient.
        """
        to = [recipients] if isinstance(recipients, str) else list(recipients or ())
        check_addresses(to, client_ip)
        if message is None:
            sender = DEFAULT_SENDER if sender is None else sender
            octets = compose(sender, to, subject, text)
        else:
            octets = octets_of(message)
            if sender is None:
                sender = next(iter(addresses_in(octets, "Sender", "From")), DEFAULT_SENDER)
            to = to or addresses_in(octets, "To", "Cc", "Bcc")
        if not to:
            raise TypeError("receive() needs recipients: they are in no To field either")
        delivery = Delivery(octets, sender, to, verdict_options(verdicts), client_ip, helo)
        return deliver(*self.smtp, delivery)

    async def receive_async(self, message: Message | None = None, **options: Any) -> str:
        """Do what `receive` does, and let the caller's event loop run meanwhile."""
        return await asyncio.to_thread(self.receive, message, **options)

    def function(self, name: str, handler: Handler) -> Function:
        """Let Lambda actions call a handler in this process: `handler(event, context)`.

        `name` is an ARN or the name of a function. The handler runs in a thread of its own and may
        be a coroutine function; what it raises counts as a failed call. Return the function, which
        records its calls and has the `arn` for rules.
        """
        if not callable(handler):
            raise TypeError(f"the handler of {name} cannot be called: {handler!r}")
        found = Function(self._arn("lambda", name, "function:"), handler)
        self._recorders.functions[found.arn] = found
        self._put_target(FUNCTION, found.arn, TARGET)
        return found

    def topic(self, name: str) -> Topic:
        """Return a topic that records what rules publish; `name` is an ARN or a topic's name."""
        found = self._recorders.topics.setdefault(
            self._arn("sns", name, ""), Topic(self._arn("sns", name, ""))
        )
        self._put_target(TOPIC, found.arn, TARGET)
        return found

    def bucket(self, name: str) -> Bucket:
        """Return a bucket in which S3 actions store. Raise `ValueError` for an unusable name."""
        if not _BUCKET.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a bucket: 2 to 255 of a-z A-Z 0-9 . _ -")
        directory = self.app.settings.data_dir.absolute() / "buckets" / name
        directory.mkdir(parents=True, exist_ok=True)
        self._put_target(BUCKET, name, f"directory:{directory}")
        return Bucket(name, directory)

    def rules(self, *rules: Mapping[str, Any]) -> None:
        """Make these the rules of the active receipt rule set, in the form of CreateReceiptRule.

        A rule without a Name gets one, and is enabled. Raise
        `SetupError`.
        """
        named = [{"Name": f"rule-{number}", **rule} for number, rule in enumerate(rules, 1)]
        rule_sets = {_RULE_SET: {"rules": named}}
        self.apply({"rule_sets": rule_sets, "active_rule_set": _RULE_SET})

    def apply(self, setup: Mapping[str, Any] | str | PathLike[str]) -> Applied:
        """Apply a setup as `sendback rules apply` does: a path of a TOML file, or its content.

        Raise `SetupError`.
        """
        if isinstance(setup, Mapping):
            parsed = parse_setup(setup, Path.cwd())
        else:
            parsed = read_setup(Path(setup).read_text("utf-8"), Path(setup))
        app = self.app
        return self.run(app.setup.apply(app.settings.account_id, parsed, prune=False))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's event loop: for tests of Sendback itself."""
        return self._running()[0].call(work)

    def _put_target(self, kind: str, name: str, target: str) -> None:
        app = self.app
        unit = PutTargets(app.settings.account_id, {(kind, name): target})
        self.run(app.store.write(unit))

    def _arn(self, service: str, name: str, prefix: str) -> str:
        if name.startswith("arn:"):
            return name
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is neither an ARN nor a name of a-z A-Z 0-9 _ -")
        settings = self.app.settings
        return f"arn:aws:{service}:{settings.region}:{settings.account_id}:{prefix}{name}"

    def _running(self) -> tuple[ServerThread, App, Addresses]:
        if self._started is None:
            raise ServerError("the server is not started: use it in a `with` block")
        if self._has_stopped and os.getpid() == self._process:
            raise ServerError("the server has stopped")
        return self._started


def _check_names(settings: Mapping[str, object]) -> None:
    known = [entry.name for entry in fields(Settings)]
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {close[0]}?" if close else "see docs/operations.md"
            raise SettingError(
                name, settings[name], "the test", f"no setting has this name: {advice}"
            )


def _text(value: object) -> str:
    """Return the text of a setting's value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    return str(value)
