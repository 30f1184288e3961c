"""Two nodes on one PostgreSQL are one service."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tests.conftest import need
from tests.partners.clients import send_mail, ses
from tests.partners.pgbouncer import PgBouncer
from tests.partners.postgresql import shared_server
from tests.partners.sendback import Sendback, run_cli
from tests.partners.webhook import Webhook

pytestmark = pytest.mark.timeout(400)  # each starts several servers

# A poll takes a second at most, and a node on a busy machine its time.
POLL_SECONDS = 2.0

ARN = "arn:aws:sns:us-east-1:000000000000:mail"


def rules(webhook: Webhook) -> str:
    """A setup whose rule notifies the webhook of each mail for example.com."""
    return f"""
identities = ["example.com"]
active_rule_set = "main"
topics = {{ "{ARN}" = "{webhook.url}" }}

[[rule_sets.main.rules]]
Name = "notify"
Actions = [{{ SNSAction = {{ TopicArn = "{ARN}" }} }}]
"""


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What the condition returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.02)
    return found


def receives(node: Sendback, recipient: str) -> bool:
    """Whether the node accepts mail for the recipient."""
    try:
        send_mail(node.smtp_port, recipients=(recipient,))
    except AssertionError:
        return False
    return True


def command(database: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command on a machine without node: it has only the URL."""
    return run_cli(
        *arguments, "--database", database, environment={"SENDBACK_DATA_DIR": "/nowhere"}
    )


@contextmanager
def tail(node: Sendback, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`sendback tail` at a node."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sendback", "tail", "--json",
         "--endpoint-url", node.endpoint, *arguments],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def events_until(process: "subprocess.Popen[bytes]", kind: str, key: str) -> dict[str, Any]:
    """The first event of that kind that has the key in it."""
    assert process.stdout is not None
    while True:
        event: dict[str, Any] = json.loads(process.stdout.readline())
        if event["kind"] == kind and key in json.dumps(event):
            return event


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as found:
        yield found


@pytest.fixture
def slow() -> Iterator[Webhook]:
    """A webhook whose first reply takes longer than a node has to stop."""
    with Webhook((200, b"", 30.0)) as found:
        yield found


def test_mail_received_by_one_node_is_bounced_through_another_and_delivered_by_either(nodes):
    first, second = nodes(), nodes()
    ses(first.endpoint).verify_domain_identity(Domain="example.com")
    until(lambda: receives(second, "bob@example.com"), POLL_SECONDS)
    with tail(second) as events:
        time.sleep(1.5)  # it has begun by then
        message_id = send_mail(first.smtp_port)
        found = events_until(events, "received", message_id)
        bounce_id = ses(second.endpoint).send_bounce(
            OriginalMessageId=message_id,
            BounceSender="mailer-daemon@example.com",
            BouncedRecipientInfoList=[
                {"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}
            ],
        )["MessageId"]
        ended = events_until(events, "attempt", bounce_id)
    assert int(found["id"]) < int(ended["id"])
    for node in (first, second):
        rows = node.query("SELECT state FROM outbox WHERE message_id = :id", id=bounce_id)
        assert rows == [("captured",)]
        assert (
            ses(node.endpoint).get_send_statistics()["SendDataPoints"][0]["DeliveryAttempts"] == 1
        )


def test_a_change_at_one_node_is_in_force_at_the_other_at_once(nodes):
    """Within a tenth of a second in the median: polling alone takes a quarter of a second."""
    first, second = nodes(), nodes()
    client = ses(first.endpoint)
    receives(second, "bob@example.com")
    waits = []
    for number in range(9):
        time.sleep(0.31)  # so that the polls have another phase each time
        receives(second, "bob@example.com")
        client.verify_domain_identity(Domain=f"d{number}.example.com")
        began = time.monotonic()
        until(lambda n=number: receives(second, f"bob@d{n}.example.com"), POLL_SECONDS)
        waits.append(time.monotonic() - began)
    assert sorted(waits)[4] < 0.1, waits


def test_a_key_that_is_disabled_at_one_node_is_refused_by_the_other(nodes, database):
    first, second = nodes(), nodes()
    made = json.loads(first_command(first, "keys", "create", "--account", "000000000000", "--json"))
    client = ses(second.endpoint, key=made["access_key_id"], secret=made["secret_access_key"])
    until(lambda: works(client), POLL_SECONDS)
    command(database, "keys", "disable", made["access_key_id"])
    until(lambda: not works(client), POLL_SECONDS)
    assert not works(ses(first.endpoint, key=made["access_key_id"], secret="x"))


def first_command(node: Sendback, *arguments: str) -> str:
    return run_cli(
        *arguments, "--data-dir", str(node.data_dir), environment=node.environment
    ).stdout


def works(client: Any) -> bool:
    try:
        client.list_identities()
    except ClientError:
        return False
    return True


def test_a_command_on_a_machine_without_node_wakes_the_nodes_and_its_events_are_seen(
    nodes, database, webhook, tmp_path
):
    first = nodes()
    setup = tmp_path / "setup.toml"
    setup.write_text(rules(webhook))
    with tail(first) as events:
        time.sleep(1.5)
        command(database, "rules", "apply", str(setup))
        events_until(events, "setting", "main")


def test_sns_messages_of_both_nodes_verify_with_one_certificate(nodes, webhook, tmp_path, database):
    first, second = nodes(), nodes()
    setup = tmp_path / "setup.toml"
    setup.write_text(rules(webhook))
    command(database, "rules", "apply", str(setup))
    for node in (first, second):
        until(lambda n=node: receives(n, "bob@example.com"), POLL_SECONDS)
    messages = [json.loads(webhook.next(20)[1]) for _ in range(2)]
    urls = {message["SigningCertURL"] for message in messages}
    paths = {url.rpartition("/")[2] for url in urls}
    assert len(urls) == 2
    assert len(paths) == 1
    (path,) = paths
    served = {urlopen(f"{node.endpoint}/{path}").read() for node in (first, second)}
    assert len(served) == 1
    certificate = x509.load_pem_x509_certificate(served.pop())
    for message in messages:
        text = "".join(
            f"{name}\n{message[name]}\n"
            for name in ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
        )
        used = hashes.SHA1() if message["SignatureVersion"] == "1" else hashes.SHA256()
        certificate.public_key().verify(
            base64.b64decode(message["Signature"]), text.encode(), padding.PKCS1v15(), used
        )


def test_a_node_with_another_secret_does_not_start_and_says_what_to_do(nodes):
    first = nodes()
    for secret, text in (("", "that is not here"), ("77" * 32, "another secret")):
        with pytest.raises(RuntimeError, match=text) as error:
            nodes(SENDBACK_SECRET=secret)
        assert "copy secret.key from the data directory of another node" in str(error.value)
    assert ses(first.endpoint).list_identities()["Identities"] == []


def test_a_node_that_is_stopped_past_its_lease_and_continued_serves_on(nodes):
    """Its mail is delivered by the other; it records nothing stale."""
    environment = {"SENDBACK_LEASE": "2s", "SENDBACK_WORKER_TIMEOUT": "60s"}
    first, second = nodes(**environment), nodes(**environment)
    ses(first.endpoint).verify_domain_identity(Domain="example.com")
    until(lambda: receives(second, "bob@example.com"), POLL_SECONDS)
    assert first.process is not None
    os.kill(first.process.pid, signal.SIGSTOP)
    bounced = []
    for _ in range(3):
        message_id = send_mail(second.smtp_port)
        bounced.append(bounce(second, message_id))
    time.sleep(4)
    os.kill(first.process.pid, signal.SIGCONT)
    message_id = until(lambda: receives(first, "bob@example.com")) and send_mail(first.smtp_port)
    bounced.append(bounce(first, message_id))
    until(lambda: not first.query("SELECT 1 FROM outbox WHERE state = 'queued'"))
    rows = first.query("SELECT message_id, attempts FROM outbox")
    assert dict(rows) == dict.fromkeys(bounced, 1)


def bounce(node: Sendback, message_id: str) -> str:
    answer = ses(node.endpoint, retries={"max_attempts": 4}).send_bounce(
        OriginalMessageId=message_id,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}],
    )
    return str(answer["MessageId"])


def test_a_node_that_stops_hands_its_work_to_the_other_at_once(nodes, slow, tmp_path, database):
    """The webhook does not respond; the rows are leased for two minutes, unless given back."""
    first, second = nodes(SENDBACK_LEASE="120s"), nodes(SENDBACK_LEASE="120s")
    setup = tmp_path / "setup.toml"
    setup.write_text(rules(slow))
    command(database, "rules", "apply", str(setup))
    until(lambda: receives(first, "bob@example.com"), POLL_SECONDS)
    slow.next(20)
    assert first.stop() == 0
    ended = time.monotonic()
    until(lambda: second.query("SELECT 1 FROM processing WHERE state = 'done'"))
    assert time.monotonic() - ended < 10


def test_behind_a_pooler_nodes_poll_and_listen_where_they_are_told_to(nodes, database, tmp_path):
    """PgBouncer in transaction mode loses what LISTEN would get; NOTIFY passes it."""
    need("PgBouncer", available=PgBouncer.is_installed())
    with PgBouncer(shared_server(), tmp_path) as pooler:
        url = pooler.url(database)
        first = nodes(SENDBACK_DATABASE=url)
        second = nodes(SENDBACK_DATABASE=url, SENDBACK_LISTEN_DATABASE=database)
        until(lambda: "there is a connection pooler" in first.log, POLL_SECONDS)
        assert "not_listening" not in second.log
        ses(second.endpoint).verify_domain_identity(Domain="example.com")
        until(lambda: receives(first, "bob@example.com"), POLL_SECONDS)
        ses(first.endpoint).verify_domain_identity(Domain="other.example.com")
        until(lambda: receives(second, "bob@other.example.com"), POLL_SECONDS)
        bounce(first, send_mail(second.smtp_port))
        until(lambda: first.query("SELECT 1 FROM outbox WHERE state = 'captured'"))
