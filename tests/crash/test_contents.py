"""Contents of whole servers: bad settings, kill -9 between a content and its row, two nodes."""

import os
import smtplib
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from sendback.clock import SystemClock
from sendback.config.readers import content_store
from sendback.config.types import ContentAddress
from sendback.store.engine.store import transact
from tests.conftest import need
from tests.partners.clients import MAIL, send_mail, ses
from tests.partners.content_stores import Place
from tests.partners.object_server import CREDENTIALS, FaultyProxy
from tests.partners.postgresql import binaries, query, shared_server
from tests.partners.sendback import Sendback, run_cli
from tests.partners.waiting import wait_for
from tests.store.test_contents import age_claims, ledger, sweep

LARGE = MAIL + (b"y" * 98 + b"\r\n") * 20_000
SETUP = """
identities = ["example.com"]
active_rule_set = "main"
buckets = {{ mail = "directory:{folder}" }}
[[rule_sets.main.rules]]
Name = "all"
Actions = [{{ S3Action = {{ BucketName = "mail" }} }}]
"""


@pytest.fixture
def postgresql():
    need("PostgreSQL", available=binaries() is not None)
    return shared_server().create()


@pytest.fixture
def proxy(object_server):
    instance = FaultyProxy(object_server.port)
    yield instance
    instance.close()


def fails_to_start(folder, environment, code):
    """What a server that does not start has written."""
    server = Sendback(folder, environment={**CREDENTIALS, **environment})
    with pytest.raises(RuntimeError, match="did not start"):
        server.start()
    assert server.process.returncode == code, server.log
    assert "Traceback" not in server.log
    assert "hush" not in server.log
    return server.log


# --- the start ---------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_missing_bucket_is_an_error_of_the_settings(tmp_path, object_server, workers):
    url = object_server.url("x", bucket="no-such-bucket").replace("s3://", "s3://id:hush@")
    environment = {"SENDBACK_CONTENT_STORE": url, "SENDBACK_WORKERS": workers}
    log = fails_to_start(tmp_path, environment, 2)
    assert "setting content_store = 's3://no-such-bucket/x" in log
    assert "there is no bucket no-such-bucket" in log


def test_denied_access_is_an_error_of_the_settings(tmp_path, proxy, object_server):
    environment = {"SENDBACK_CONTENT_STORE": object_server.url("x", proxy.port)}
    with proxy.status(403, "PUT", "GET"):
        assert "access is denied" in fails_to_start(tmp_path, environment, 2)


def test_a_server_that_is_not_there_is_no_error_of_the_settings(tmp_path, object_server):
    environment = {"SENDBACK_CONTENT_STORE": object_server.url("x", port=1)}
    assert "127.0.0.1:1" in fails_to_start(tmp_path, environment, 1)


def test_a_missing_extra_says_what_to_install(tmp_path, object_server):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "obstore.py").write_text("raise ImportError('no such module')")
    environment = {
        "SENDBACK_CONTENT_STORE": object_server.url("x"),
        "PYTHONPATH": str(tmp_path / "modules"),
    }
    assert "pip install sendback[objects]" in fails_to_start(tmp_path, environment, 2)


def test_a_directory_is_refused_where_other_nodes_would_not_find_it(tmp_path, postgresql):
    environment = {"SENDBACK_DATABASE": postgresql, "SENDBACK_CONTENT_STORE": "directory"}
    log = fails_to_start(tmp_path, environment, 2)
    assert "another node would not find the content" in log
    with Sendback(tmp_path, environment={**environment, "SENDBACK_SHARE_DATA_DIR": "true"}):
        pass


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("ftp://bucket/x", "database, directory, or the URL of an object store"),
        ("s3://bucket/x?endpiont=http://x", "the parameters are endpoint, region"),
        ("s3://bucket/x?endpoint=nowhere", "endpoint must be the URL of a server"),
        ("gs://id:hush@bucket/x", "a URL with credentials is s3://"),
        ("s3:///x", "database, directory, or the URL of an object store"),
    ],
)
def test_a_url_that_cannot_be_used(tmp_path, value, words):
    assert words in fails_to_start(tmp_path, {"SENDBACK_CONTENT_STORE": value}, 2)


def test_workers_open_the_object_store_after_the_fork(tmp_path, object_server):
    """Its library would hang in a child process of one that has used it."""
    url = object_server.url(f"workers-{time.time_ns()}")
    environment = {**CREDENTIALS, "SENDBACK_CONTENT_STORE": url, "SENDBACK_WORKERS": "2"}
    with Sendback(tmp_path, environment=environment) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        ids = [send_mail(server.smtp_port, content=LARGE) for _ in range(4)]
        for message_id in ids:
            shown = command(environment, server, "messages", "show", "--raw", message_id)
            assert shown.endswith(LARGE.decode().replace("\r\n", "\n"))


# --- kill -9 between the content and its row ----------------------------------------------------


def send_in_background(server):
    """Sends a large mail; the list gets what came of it."""
    results = []

    def send():
        try:
            results.append(send_mail(server.smtp_port, content=LARGE))
        except (OSError, smtplib.SMTPException, AssertionError) as error:
            results.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    return thread, results


def sweep_after_an_hour(place):
    """The ledger before and after a sweep."""
    import asyncio

    async def story():
        store = place.open()
        before = await ledger(store)
        await age_claims(store)
        await sweep(store, SystemClock())
        after = await ledger(store)
        store.close()
        return before, after

    return asyncio.run(story())


def test_objects_whose_row_never_came(tmp_path, proxy, object_server, monkeypatch):
    """The object is complete, and the process dies before it knows."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    prefix = f"crash-{time.time_ns()}"
    url = object_server.url(prefix, proxy.port)
    environment = {**CREDENTIALS, "SENDBACK_CONTENT_STORE": url}
    server = Sendback(tmp_path, environment=environment).start()
    ses(server.endpoint).verify_domain_identity(Domain="example.com")
    with proxy.hold("PUT", "POST"):
        thread, results = send_in_background(server)
        wait_for(lambda: object_server.keys(prefix) or proxy.held.is_set(), 20)
        if not object_server.keys(prefix):  # the answer to a part is held: kill it there
            assert proxy.held.is_set()
        server.kill()
    thread.join()
    assert not isinstance(results[0], str)
    database = server.database_url
    before, after = sweep_after_an_hour(Place("s3", database, server.data_dir, content_store(url)))
    assert [state for _, state in before] == ["writing"]
    assert after == []
    assert object_server.keys(prefix) == []
    with server:
        assert server.json("messages", "list") == []
        message_id = send_mail(server.smtp_port, content=LARGE)
        assert object_server.keys(prefix) == [message_id]


def test_chunks_whose_row_never_came(tmp_path, postgresql):
    """All chunks are committed, and the process dies while the row waits for a lock."""
    environment = {"SENDBACK_DATABASE": postgresql}
    server = Sendback(tmp_path, environment=environment).start()
    ses(server.endpoint).verify_domain_identity(Domain="example.com")
    chunks = text("SELECT coalesce(sum(length(octets)), 0) FROM content_chunks")

    def octets(connection):
        return connection.execute(chunks).scalar()

    def kill_it(connection):
        connection.execute(text("LOCK TABLE messages IN EXCLUSIVE MODE"))
        thread, results = send_in_background(server)
        wait_for(lambda: transact(postgresql, octets, writes=False) > len(LARGE) - 1000, 20)
        time.sleep(0.3)
        server.kill()
        return thread, results

    thread, results = transact(postgresql, kill_it, writes=True)
    thread.join()
    assert not isinstance(results[0], str)
    place = Place("database", postgresql, tmp_path / "other", ContentAddress("database"))
    before, after = sweep_after_an_hour(place)
    assert [state for _, state in before] == ["writing"]
    assert after == []
    assert transact(postgresql, octets, writes=False) == 0
    with server:
        assert query(postgresql, "SELECT message_id FROM messages") == []
        send_mail(server.smtp_port, content=LARGE)


# --- two nodes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["database", "s3"])
def test_what_one_node_receives_another_processes_bounces_and_shows(
    tmp_path, postgresql, object_server, kind
):
    """Separate data directories; the first node is gone when its mail is processed."""
    value = object_server.url(f"nodes-{time.time_ns()}") if kind == "s3" else "database"
    environment = {
        **CREDENTIALS,
        "SENDBACK_DATABASE": postgresql,
        "SENDBACK_CONTENT_STORE": value,
        "SENDBACK_SECRET": os.urandom(32).hex(),
        "SENDBACK_LEASE": "2s",
        "SENDBACK_ACTION_RETRY_FIRST": "1s",
        "SENDBACK_DNS": "off",
    }
    first, second = (
        Sendback(Path(tmp_path, name), environment=environment) for name in ("first", "second")
    )
    for node in (first, second):
        node.folder.mkdir()
    bucket = tmp_path / "bucket"
    (tmp_path / "setup.toml").write_text(SETUP.format(folder=bucket))
    with first:
        command(environment, first, "rules", "apply", str(tmp_path / "setup.toml"))
        bucket.write_text("in the way")  # the action fails until the first node is gone
        time.sleep(1.1)
        message_id = send_mail(first.smtp_port, content=LARGE)
        first.kill()
    bucket.unlink()
    with second:
        wait_for((bucket / message_id).exists, 30)
        assert (bucket / message_id).read_bytes().endswith(LARGE)
        answer = ses(second.endpoint).send_bounce(
            OriginalMessageId=message_id,
            BounceSender="mailer-daemon@example.com",
            BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "Undefined"}],
        )
        assert answer["MessageId"]
        shown = command(environment, second, "messages", "show", "--raw", message_id)
        assert shown.endswith(LARGE.decode().replace("\r\n", "\n"))
        checked = command(environment, second, "db", "check")
        assert "every message body exists" in checked
    assert not list(tmp_path.glob("*/data/blobs/*"))


def command(environment, node, *arguments):
    """What a command prints that has the settings of the nodes."""
    done = run_cli(
        *arguments, "--data-dir", str(node.data_dir), check=False, environment=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
