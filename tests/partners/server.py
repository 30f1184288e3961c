"""A server in the test's process, with what only the tests of Sendback itself need."""

import time
import tomllib
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sendback.aws.arn import ROOT_USER
from sendback.config.types import Listen
from sendback.net.listening import Addresses
from sendback.service.access.keys import IssuedKey
from sendback.service.rules.apply_setup import Applied
from sendback.service.rules.setup_file import parse_setup
from sendback.store.access.accounts import AddAccount
from sendback.store.access.users import AddUser
from sendback.store.outbox.control import FindOutboxMessage, ListOutbox, Selection
from sendback.store.outbox.rows import Attempt, OutboxMessage
from sendback.store.rules.processing import FindProcessing, ProcessingState, StepRecord
from sendback.testing import Sendback
from tests.partners.clients import send_mail, ses
from tests.partners.postgresql import database_url, is_chosen, query


class Server(Sendback):
    """A started server whose accounts, rules and rows are at hand, on the database of the run."""

    def __init__(self, *, data_dir: Path | None = None, **settings: Any) -> None:
        if data_dir is not None:
            settings["data_dir"] = data_dir
        if is_chosen() and "database" not in settings:
            settings["database"] = database_url(data_dir or Path("/nowhere", uuid.uuid4().hex))
        super().__init__(**settings)

    @property
    def settings(self) -> Any:
        return self.app.settings

    def query(self, statement: str, **parameters: object) -> list[Any]:
        """Run a statement of SQL in the server's database; its rows, if it has some."""
        return query(self.settings.database_url, statement, **parameters)

    @property
    def addresses(self) -> Addresses:
        http = urlsplit(self.endpoint_url)
        return Addresses(Listen(http.hostname or "", http.port or 0), Listen(*self.smtp))

    @property
    def endpoint(self) -> str:
        return self.endpoint_url

    @property
    def smtp_port(self) -> int:
        return self.smtp[1]

    def ses_client(self, **options: Any) -> Any:
        """A client with other credentials or another configuration than `ses` has."""
        return ses(self.endpoint, **options)

    def ses_of(self, account_id: str, user: str, **options: Any) -> Any:
        """A client of another account's user, who is made with a key if need be."""
        issued = self.issue(account_id, user)
        return self.ses_client(key=issued.key.access_key, secret=issued.secret, **options)

    def issue(self, account_id: str, user: str) -> IssuedKey:
        """A key of the account's user; both are added if need be."""
        now = self.app.clock.now()
        self.run(self.app.store.write(AddAccount(account_id, now)))
        if user != ROOT_USER:
            self.run(self.app.store.write(AddUser(account_id, user, now)))
        return self.run(self.app.keys.create(account_id, user))

    def send_mail(self, **options: Any) -> str:
        return send_mail(self.smtp_port, **options)

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
        answer = (client or self.ses).send_bounce(
            OriginalMessageId=self.send_mail(recipients=(recipient,), **mail),
            BounceSender=bounce_sender,
            BouncedRecipientInfoList=[{"Recipient": recipient, "BounceType": "DoesNotExist"}],
            **(arguments or {}),
        )
        return str(answer["MessageId"])

    def content(self, message_id: str) -> bytes:
        """A received message as it is stored."""

        async def read() -> bytes:
            shown = await self.app.messages.find(self.settings.account_id, message_id)
            assert shown.content is not None, message_id
            return await shown.content.whole()

        return self.run(read())

    def attempts(self, message_id: str) -> list[Attempt]:
        """What was tried to deliver a bounce, in order."""
        unit = FindOutboxMessage(self.settings.account_id, message_id)
        found = self.run(self.app.store.read(unit))
        assert found is not None, message_id
        return list(found[1])

    def outbox(self) -> list[OutboxMessage]:
        unit = ListOutbox(Selection(self.settings.account_id), 1000)
        return list(self.run(self.app.store.read(unit)))

    def bounce(self, message_id: str) -> OutboxMessage:
        """The bounce once it has come to an end, or has been tried and waits."""
        deadline = time.monotonic() + 10
        while True:
            found = self.run(self.app.store.read(FindOutboxMessage("000000000000", message_id)))
            assert found is not None, message_id
            if found[0].attempts or time.monotonic() > deadline:
                return found[0]
            time.sleep(0.01)

    def set_up(self, toml: str, *, prune: bool = False) -> Applied:
        """Sets up rules as `sendback rules apply` does."""
        setup = parse_setup(tomllib.loads(toml), self.settings.data_dir)
        return self.run(self.app.setup.apply(self.settings.account_id, setup, prune=prune))

    def steps(self, message_id: str, *, until_done: bool = True) -> list[StepRecord]:
        """What the message's rules have done, once they have come to their end."""
        deadline = time.monotonic() + 15
        while True:
            unit = FindProcessing(self.settings.account_id, message_id)
            found = self.run(self.app.store.read(unit))
            assert found is not None, f"{message_id} has no rules"
            done = found[0].state is ProcessingState.DONE
            if done or (not until_done and found[1]):
                return list(found[1])
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
