"""A whole server inside the test's process, so that the test can move its clock."""

import asyncio
import threading
import time
import tomllib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from sendback.app import App
from sendback.aws.arn import ROOT_USER
from sendback.clock import Clock
from sendback.config.loading import load
from sendback.net.listening import Addresses, bind
from sendback.service.access.keys import IssuedKey
from sendback.service.rules.apply_setup import Applied
from sendback.service.rules.setup_file import parse_setup
from sendback.serving import prepare, serve
from sendback.store.access.accounts import AddAccount
from sendback.store.access.users import AddUser
from sendback.store.outbox.control import FindOutboxMessage, ListOutbox, Selection
from sendback.store.outbox.rows import Attempt, OutboxMessage
from sendback.store.rules.processing import FindProcessing, ProcessingState, StepRecord
from tests.partners.clients import send_mail, ses

T = TypeVar("T")


class Running:
    """Serves on free ports of loopback until it is stopped."""

    def __init__(self, data_dir: Path, clock: Clock, flags: dict[str, str]) -> None:
        given = {
            "http_listen": "127.0.0.1:0",
            "smtp_listen": "127.0.0.1:0",
            "data_dir": str(data_dir),
            "hostname": "mx.example.com",
            "verification": "at_once",
            **flags,
        }
        self.settings = load(given, environ={}).settings
        prepare(self.settings)
        sockets, addresses = bind(self.settings)
        self.addresses: Addresses = addresses
        self._loop = uvloop.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self.app: App

        async def main() -> None:
            self.app = App(self.settings, clock, http=self.addresses.http)
            await self.app.check_secret()
            await self.app.store.write(AddAccount(self.settings.account_id, clock.now()))
            await serve(self.app, sockets, self._ready.set, self._stop)
            self.app.close()

        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(main(),))
        self._thread.start()
        assert self._ready.wait(20)

    @property
    def endpoint(self) -> str:
        return f"http://{self.addresses.http}"

    @property
    def smtp_port(self) -> int:
        return self.addresses.smtp.port

    def ses(self, **options: Any) -> Any:
        return ses(self.endpoint, **options)

    def ses_of(self, account_id: str, user: str, **options: Any) -> Any:
        """A client of another account's user, who is made with a key if need be."""
        issued = self.issue(account_id, user)
        return self.ses(key=issued.key.access_key, secret=issued.secret, **options)

    def issue(self, account_id: str, user: str) -> IssuedKey:
        """A key of the account's user; both are added if need be."""
        now = self.app.clock.now()
        self.call(self.app.store.write(AddAccount(account_id, now)))
        if user != ROOT_USER:
            self.call(self.app.store.write(AddUser(account_id, user, now)))
        return self.call(self.app.keys.create(account_id, user))

    def send_mail(self, **options: Any) -> str:
        return send_mail(self.smtp_port, **options)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def send_bounce(
        self,
        *,
        bounce_sender: str = "mailer-daemon@example.com",
        recipient: str = "bob@example.com",
        client: Any = None,
        arguments: dict[str, Any] | None = None,
        **mail: Any,
    ) -> str:
        """Sends a mail to the recipient, bounces it, and answers the bounce's MessageId."""
        answer = (client or self.ses()).send_bounce(
            OriginalMessageId=self.send_mail(recipients=(recipient,), **mail),
            BounceSender=bounce_sender,
            BouncedRecipientInfoList=[{"Recipient": recipient, "BounceType": "DoesNotExist"}],
            **(arguments or {}),
        )
        return str(answer["MessageId"])

    def attempts(self, message_id: str) -> list[Attempt]:
        """What was tried to deliver a bounce, in order."""
        unit = FindOutboxMessage(self.settings.account_id, message_id)
        found = self.call(self.app.store.read(unit))
        assert found is not None, message_id
        return list(found[1])

    def outbox(self) -> list[OutboxMessage]:
        unit = ListOutbox(Selection(self.settings.account_id), 1000)
        return list(self.call(self.app.store.read(unit)))

    def bounce(self, message_id: str) -> OutboxMessage:
        """The bounce once it has come to an end, or has been tried and waits."""
        deadline = time.monotonic() + 10
        while True:
            found = self.call(self.app.store.read(FindOutboxMessage("000000000000", message_id)))
            assert found is not None, message_id
            if found[0].attempts or time.monotonic() > deadline:
                return found[0]
            time.sleep(0.01)

    def apply(self, toml: str, *, prune: bool = False) -> Applied:
        """Sets up rules as `sendback rules apply` does."""
        setup = parse_setup(tomllib.loads(toml), self.settings.data_dir)
        return self.call(self.app.setup.apply(self.settings.account_id, setup, prune=prune))

    def steps(self, message_id: str, *, until_done: bool = True) -> list[StepRecord]:
        """What the message's rules have done, once they have come to their end."""
        deadline = time.monotonic() + 15
        while True:
            unit = FindProcessing(self.settings.account_id, message_id)
            found = self.call(self.app.store.read(unit))
            assert found is not None, f"{message_id} has no rules"
            done = found[0].state is ProcessingState.DONE
            if done or (not until_done and found[1]):
                return list(found[1])
            assert time.monotonic() < deadline, found
            time.sleep(0.01)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(30)
            self._loop.close()
