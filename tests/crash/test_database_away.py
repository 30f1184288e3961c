"""PostgreSQL stopped and restarted under a server: clients are told to come back, nothing is lost.

The server of the database is the test's own, and syncs its commits.
"""

import smtplib
import threading
import time
from contextlib import suppress

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.conftest import need
from tests.partners.clients import MAIL, send_mail, ses
from tests.partners.postgresql import binaries, private_server, query
from tests.partners.sendback import Sendback, run_cli
from tests.partners.waiting import wait_for

pytestmark = pytest.mark.sqlite("it has a server of its own in either run")

RECOVERY_SECONDS = 5


@pytest.fixture
def database():
    need("PostgreSQL", available=binaries() is not None)
    with private_server(fsync="on") as found:
        yield found


@pytest.fixture
def place(database, tmp_path):
    """A server that is not started yet, on an empty database."""
    environment = {
        "SENDBACK_DATABASE": database.create_empty(),
        "SENDBACK_SEND_BOUNCE_RATE": "0",
        "SENDBACK_DNS": "off",
    }
    found = Sendback(tmp_path, environment=environment)
    yield found
    found.kill()


def code_of(server):
    """The code and the first words of the server's reply to a mail."""
    try:
        with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=30) as smtp:
            smtp.sendmail("ann@sender.example", ["bob@example.com"], MAIL)
    except smtplib.SMTPRecipientsRefused as error:
        ((code, text),) = error.recipients.values()
        return code, text[:5]
    except smtplib.SMTPResponseException as error:
        return error.smtp_code, error.smtp_error[:5]
    return 250, b""


def test_a_stopped_database_is_temporary_and_the_server_recovers_by_itself(place, database):
    server = place.start()
    client = ses(server.endpoint, read_timeout=30)
    client.verify_domain_identity(Domain="example.com")
    assert send_mail(server.smtp_port)
    database.stop("fast")
    assert code_of(server) in {(451, b"4.3.0"), (452, b"4.3.1"), (421, b"4.3.0")}
    with pytest.raises(ClientError) as caught:
        client.list_identities()
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
    database.start()
    started = time.monotonic()
    wait_for(lambda: code_of(server)[0] == 250, 20)
    assert client.list_identities()["Identities"] == ["example.com"]
    assert time.monotonic() - started < RECOVERY_SECONDS
    assert server.stop() == 0


def test_a_server_stops_while_its_database_is_away(place, database):
    server = place.start()
    database.stop("immediate")
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 15


class Load:
    """Sends mails one after another and bounces each; notes what was acknowledged."""

    def __init__(self, server):
        self._server = server
        self._ended = threading.Event()
        self.received, self.bounced = [], []
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        while not self._ended.is_set():
            with suppress(
                OSError, smtplib.SMTPException, BotoCoreError, ClientError, AssertionError
            ):
                client = ses(self._server.endpoint, connect_timeout=5, read_timeout=30)
                while not self._ended.is_set():
                    message_id = send_mail(self._server.smtp_port)
                    self.received.append(message_id)
                    answer = client.send_bounce(
                        OriginalMessageId=message_id,
                        BounceSender="mailer-daemon@example.com",
                        BouncedRecipientInfoList=[
                            {"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}
                        ],
                    )
                    self.bounced.append(answer["MessageId"])
            time.sleep(0.05)


def test_nothing_acknowledged_is_lost(place, database, record_property):
    """Restarts of the database, fast and immediate; then kill -9 of the server beside one."""
    server = place.start()
    ses(server.endpoint).verify_domain_identity(Domain="example.com")
    with Load(server) as load:
        for mode in ("fast", "immediate", "immediate"):
            before = len(load.bounced)
            wait_for(lambda before=before: len(load.bounced) > before + 20, 60)
            database.stop(mode)
            if mode == "immediate" and server.process.poll() is None:
                server.kill()
            database.start()
            if server.process.poll() is not None:
                server.start()
        before = len(load.bounced)
        wait_for(lambda: len(load.bounced) > before + 20, 60)
    stored = {name for (name,) in server.query("SELECT message_id FROM messages")}
    queued = {name for (name,) in server.query("SELECT message_id FROM outbox")}
    for name, found in (("received", len(stored)), ("bounced", len(queued))):
        record_property(name, f"{len(getattr(load, name))} acknowledged, {found} stored")
    assert set(load.received) <= stored
    assert set(load.bounced) <= queued
    assert (
        "is sound"
        in run_cli(
            "db", "check", "--data-dir", str(server.data_dir), environment=server.environment
        ).stdout
    )
    assert server.stop() == 0


# --- errors of the start -------------------------------------------------------------------------


def serve(data_dir, url, **environment):
    done = run_cli(
        "serve", "--http-listen", "127.0.0.1:0", "--smtp-listen", "127.0.0.1:0",
        "--data-dir", str(data_dir), check=False,
        environment={"SENDBACK_DATABASE": url, "SENDBACK_DNS": "off", **environment},
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("postgresql://bob:hunter2@127.0.0.1:1/mail", 1, "check host and port in the URL"),
        ("postgresql://bob:hunter2@127.0.0.1:1/mail?sslmod=x", 2, "has the parameter sslmod"),
        ("postgresql:/bob:hunter2@127.0.0.1/mail", 2, "a URL such as sqlite:///"),
    ],
)
def test_a_wrong_url_ends_the_start_without_its_password(tmp_path, url, code, words):
    found, error = serve(tmp_path / "data", url)
    assert (found, words in error) == (code, True), error
    assert "hunter2" not in error


def test_another_programs_database_and_another_secret_end_the_start(database, tmp_path):
    url = database.create_empty()
    assert run_cli(
        "db", "create", "--data-dir", str(tmp_path / "one"), environment={"SENDBACK_DATABASE": url}
    ).stdout.endswith("is ready.\n")
    first = Sendback(tmp_path, environment={"SENDBACK_DATABASE": url, "SENDBACK_DNS": "off"})
    with first:
        pass
    code, error = serve(tmp_path / "other", url, SENDBACK_SECRET="ab" * 32)
    assert code == 1
    assert "sealed with another secret" in error
    foreign = database.create_empty()
    query(foreign, "CREATE TABLE theirs (id INTEGER)")
    code, error = serve(tmp_path / "data", foreign)
    assert code == 1
    assert "is another program's: name one of its own with --database" in error
