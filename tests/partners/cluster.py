"""Several nodes of Sendback on one PostgreSQL, a mixed load on them, and a ledger outside.

The ledger has what clients were told: mails that were answered 250, calls that were answered 200.
What was not answered may have been done or not, and does not count.
"""

import itertools
import json
import random
import re
import signal
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from sendback.store.engine.store import prepare_schema
from tests.partners.clients import MAIL, ses
from tests.partners.listener import Listener
from tests.partners.postfix import free_port
from tests.partners.postgresql import private_server
from tests.partners.proxy import Proxy
from tests.partners.sendback import Sendback, run_cli
from tests.partners.webhook import Webhook

SECRET = "5e" * 32
LEASE_SECONDS = 5.0
_TOPIC = "arn:aws:sns:us-east-1:{account}:hook"
_RULES = """
identities = ["{domain}"]
active_rule_set = "main"
topics = {{ "{topic}" = "{hook}" }}
[[rule_sets.main.rules]]
Name = "no"
Recipients = ["no@{domain}"]
Actions = [
  {{ BounceAction = {{ SmtpReplyCode = "550", Message = "No", Sender = "a@{domain}" }} }},
  {{ SNSAction = {{ TopicArn = "{topic}" }} }},
]
[[rule_sets.main.rules]]
Name = "yes"
Recipients = ["yes@{domain}"]
Actions = [{{ SNSAction = {{ TopicArn = "{topic}" }} }}]
"""


@dataclass
class Account:
    account_id: str
    key: str = ""
    secret: str = ""

    @property
    def domain(self) -> str:
        return f"a{self.account_id[:4]}.example"


@dataclass
class Cluster:
    """Nodes with a data directory each; the last one reaches the database through `cut`."""

    folder: Path
    count: int = 3
    accounts: list[Account] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = Listener()
        self.hook = Webhook()
        self._port = free_port()
        self._server = private_server(
            fsync="on", listen_addresses="127.0.0.1", port=str(self._port)
        )
        self.nodes: list[Sendback] = []

    def __enter__(self) -> Self:
        self.listener.__enter__()
        self.hook.__enter__()
        self.postgresql = self._server.__enter__()
        self.postgresql.execute("CREATE DATABASE sendback TEMPLATE template0")
        prepare_schema(self.url())
        self.cut = Proxy(self.postgresql.folder / f".s.PGSQL.{self._port}").__enter__()
        for number in range(self.count):
            folder = self.folder / f"node{number}"
            folder.mkdir()
            port = self.cut.port if number == self.count - 1 else self._port
            self.nodes.append(self._node(folder, port))
        for node in self.nodes:
            node.start()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
        self.cut.__exit__()
        self._server.__exit__(None, None, None)
        self.hook.__exit__()
        self.listener.__exit__()

    def url(self, port: int = 0) -> str:
        return f"postgresql://sendback@127.0.0.1:{port or self._port}/sendback"

    def _node(self, folder: Path, port: int) -> Sendback:
        environment = {
            "SENDBACK_DATABASE": self.url(port),
            "SENDBACK_SECRET": SECRET,
            "SENDBACK_SEND_BOUNCE_RATE": "1",
            "SENDBACK_LEASE": f"{LEASE_SECONDS:g}s",
            "SENDBACK_LOG_LEVEL": "warning",
            "SENDBACK_PRIVATE_TARGETS": "true",
            "SENDBACK_DNS": "off",
        }
        return Sendback(folder, ("--outbound", self.listener.url), environment)

    def add_account(self, account_id: str) -> Account:
        """An account with a domain, a key and rules."""
        account = Account(account_id)
        self._run(0, "accounts", "create", "--id", account_id)
        issued = json.loads(self._run(0, "keys", "create", "--account", account_id, "--json"))
        account.key, account.secret = issued["access_key_id"], issued["secret_access_key"]
        rules = self.folder / f"{account_id}.toml"
        topic = _TOPIC.format(account=account_id)
        rules.write_text(_RULES.format(domain=account.domain, topic=topic, hook=self.hook.url))
        self._run(1, "rules", "apply", str(rules), "--account", account_id)
        self.accounts.append(account)
        return account

    def _run(self, number: int, *arguments: str) -> str:
        node = self.nodes[number]
        place = ("--data-dir", str(node.data_dir))
        done = run_cli(*arguments, *place, check=False, environment=node.environment)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url()) as connection:
            return connection.execute(statement).fetchall()  # type: ignore[arg-type]

    # --- what happens to nodes -------------------------------------------------------------------

    def kill(self, number: int) -> None:
        """SIGKILL, and a new start at once."""
        self.nodes[number].kill()
        self.nodes[number].start()

    @contextmanager
    def suspended(self, number: int) -> Iterator[None]:
        process = self.nodes[number].process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def restart_database(self, mode: str) -> None:
        self.postgresql.stop(mode)
        self.postgresql.start()


class Load:
    """Mail to random nodes and SendBounce calls at random nodes, until the end of `with`."""

    def __init__(self, cluster: Cluster, senders: int = 4, pause: float = 0.02) -> None:
        self._cluster = cluster
        self._pause = pause
        self._ended = threading.Event()
        self.mails: dict[str, str] = {}  # message ID: the recipient
        self.bounces: dict[str, str] = {}  # MessageId: the account
        self.refused: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._send) for _ in range(senders)]
        for account in cluster.accounts:
            # Two for each: they compete for the second of their account.
            self._threads += [threading.Thread(target=self._bounce, args=(account,)) for _ in "ab"]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._ended.wait(self._pause):
            node = random.choice(self._cluster.nodes)
            with suppress(OSError, smtplib.SMTPException):
                with smtplib.SMTP("127.0.0.1", node.smtp_port, timeout=20) as smtp:
                    smtp.ehlo()
                    for _ in range(5):
                        self._send_one(smtp)

    def _send_one(self, smtp: smtplib.SMTP) -> None:
        account = random.choice(self._cluster.accounts)
        recipient = f"{random.choice(('yes', 'no'))}@{account.domain}"
        smtp.mail("ann@sender.example")
        code, reply = smtp.rcpt(recipient)
        if code == 250:
            code, reply = smtp.data(MAIL)
        if code == 250:
            self.mails[reply.decode().split()[1]] = recipient
            return
        self.refused[f"SMTP {code}"] += 1
        smtp.rset()

    def _bounce(self, account: Account) -> None:
        clients: dict[str, Any] = {}
        while not self._ended.wait(0.2):
            endpoint = random.choice(self._cluster.nodes).endpoint
            if endpoint not in clients:
                clients[endpoint] = ses(
                    endpoint, key=account.key, secret=account.secret,
                    connect_timeout=5, read_timeout=20,
                )  # fmt: skip
            mine = [key for key, to in list(self.mails.items())[-500:] if account.domain in to]
            if mine:
                self._bounce_one(clients[endpoint], account, random.choice(mine))

    def _bounce_one(self, client: Any, account: Account, message_id: str) -> None:
        bounced = {"Recipient": self.mails[message_id], "BounceType": "DoesNotExist"}
        try:
            answer = client.send_bounce(
                OriginalMessageId=message_id,
                BounceSender=f"mailer-daemon@{account.domain}",
                BouncedRecipientInfoList=[bounced],
            )
        except ClientError as error:
            self.refused[f"SendBounce {error.response['Error']['Code']}"] += 1
        except (BotoCoreError, ResponseParserError, OSError):
            self.refused["SendBounce without an answer"] += 1
        else:
            self.bounces[answer["MessageId"]] = account.account_id


@dataclass
class Ledger:
    """What was acknowledged beside what arrived."""

    mails: int
    bounces: int
    by_rules: int
    refused: dict[str, int]
    lost: dict[str, list[str]]
    twice: dict[str, int]
    least_gap: int  # milliseconds between two bounces of one account by the API

    def lines(self) -> list[str]:
        return [
            f"acknowledged: {self.mails} mails, {self.bounces} bounces by SendBounce; "
            f"{self.by_rules} bounces by rules are due",
            f"not acknowledged: {dict(self.refused)}",
            *(f"lost, {what}: {len(ids)} {ids[:3]}" for what, ids in self.lost.items()),
            *(f"came more than once, {what}: {count}" for what, count in self.twice.items()),
            f"least gap between two calls of one account: {self.least_gap} ms",
        ]


_MESSAGE_ID = re.compile(rb"Message-ID: <([^@>]+)@", re.IGNORECASE)


def settle(cluster: Cluster, load: Load, seconds: float) -> Ledger:
    """Wait until everything that is due has come, and compare."""
    arrived: Counter[str] = Counter()
    posted: Counter[str] = Counter()

    def collect() -> None:
        while not cluster.listener.messages.empty():
            found = _MESSAGE_ID.search(cluster.listener.messages.get().content)
            arrived[found[1].decode() if found else "?"] += 1
        while not cluster.hook.posts.empty():
            message = json.loads(json.loads(cluster.hook.posts.get()[1])["Message"])
            posted[message["mail"]["messageId"]] += 1

    def is_settled() -> bool:
        collect()
        queued = cluster.query(
            "SELECT (SELECT count(*) FROM processing WHERE state = 'queued')"
            " + (SELECT count(*) FROM outbox WHERE state = 'queued')"
        )
        return queued == [(0,)]

    _wait(is_settled, seconds)
    time.sleep(2 * LEASE_SECONDS)  # what comes a second time has come by then
    collect()
    stored = {row[0] for row in cluster.query("SELECT message_id FROM messages")}
    rows = cluster.query(
        "SELECT message_id, original_message_id, account_id, created_at FROM outbox"
    )
    by_original: dict[str, list[str]] = {}
    for message_id, original, _, _ in rows:
        by_original.setdefault(original, []).append(message_id)
    refused = {key for key, to in load.mails.items() if to.startswith("no@")}
    called = _by_api(cluster)
    of_rules = {key: [i for i in by_original.get(key, []) if i not in called] for key in refused}
    lost = {
        "mails": [key for key in load.mails if key not in stored],
        "bounces by SendBounce": [key for key in load.bounces if not arrived[key]],
        "bounces by rules": [
            key for key, ids in of_rules.items() if not any(arrived[i] for i in ids)
        ],
        "notifications": [key for key in load.mails if not posted[key]],
    }
    twice = {
        "bounces by rules queued": sum(1 for ids in of_rules.values() if len(ids) > 1),
        "bounces over the wire": sum(1 for count in arrived.values() if count > 1),
        "notifications": sum(1 for count in posted.values() if count > 1),
    }
    return Ledger(
        len(load.mails), len(load.bounces), len(refused), dict(load.refused), lost, twice,
        _least_gap([(account, date) for key, _, account, date in rows if key in called]),
    )  # fmt: skip


def _by_api(cluster: Cluster) -> set[str]:
    """The bounces that SendBounce queued, answered or not."""
    return {row[0] for row in cluster.query("SELECT message_id FROM remembered_calls")}


def _least_gap(calls: list[tuple[str, int]]) -> int:
    calls.sort()
    pairs = itertools.pairwise(calls)
    return min((b - a for (one, a), (other, b) in pairs if one == other), default=0)


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for the condition; when time is up, the ledger says what is missing."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
