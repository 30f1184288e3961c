"""Content stores that fail: nothing acknowledged is lost, and they recover by themselves."""

import asyncio
import json
import smtplib
import threading
import time
import urllib.error
import urllib.request
from datetime import timedelta

import pytest
from sqlalchemy import text

from sendback.config.types import ContentAddress
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import prepare_schema
from tests.conftest import need
from tests.partners.clients import MAIL, send_mail
from tests.partners.content_stores import Place
from tests.partners.object_server import BUCKET, FaultyProxy
from tests.partners.postgresql import binaries, private_server
from tests.service.test_processing import STORE, outcomes, setup
from tests.store.test_contents import age_claims, ledger, octets, pieces, read, receive, sweep

LARGE = MAIL + (b"y" * 98 + b"\r\n") * 8000
WRITES = ("PUT", "POST")
READS = ("GET", "HEAD")


@pytest.fixture
def proxy(object_server):
    instance = FaultyProxy(object_server.port)
    yield instance
    instance.close()


@pytest.fixture
def prefix(request):
    return f"{request.node.name[:60].translate(str.maketrans('[] ', '___'))}-{time.time_ns()}"


@pytest.fixture
def server(running, proxy, object_server, credentials, prefix, tmp_path):
    instance = running(
        dns="off",
        send_bounce_rate="0",
        check_targets="false",
        content_store=object_server.url(prefix, proxy.port),
    )
    instance.set_up(setup(([], [STORE]), buckets=f"directory:{tmp_path}/mail"))
    return instance


def reply_to(server, content=LARGE):
    """The reply to a mail: its code and text."""
    with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=60) as smtp:
        smtp.ehlo()
        smtp.mail("ann@sender.example")
        smtp.rcpt("bob@example.com")
        code, reply = smtp.data(content)
    return code, reply.decode()


def rows(server, query):
    return server.run(server.app.store.read(lambda c: c.execute(text(query)).all()))


@pytest.mark.parametrize("status", [500, 503, 403, 404, None])
def test_mail_is_refused_for_now_while_the_store_fails(
    server, proxy, object_server, prefix, status
):
    """404 is a bucket that is gone, None a server that ends connections."""
    fault = proxy.refuse() if status is None else proxy.status(status, *WRITES, *READS)
    with fault:
        assert reply_to(server) == (451, "4.3.0 Internal error; try again later")
        code, _ = reply_to(server, MAIL)  # it needs no content store
        assert code == 250
    assert len(rows(server, "SELECT message_id FROM messages")) == 1
    started = time.monotonic()
    code, reply = reply_to(server)
    assert code == 250
    assert time.monotonic() - started < 5
    assert server.content(reply.split()[1]).endswith(LARGE)
    server.run(server.app.housekeeping.sweep())
    assert rows(server, "SELECT blob FROM loose_contents") == []
    assert object_server.keys(prefix) == [reply.split()[1]]


def test_a_slow_store_delays_no_other_mail(server, proxy):
    replies = []
    with proxy.hold(*WRITES):
        slow = threading.Thread(target=lambda: replies.append(reply_to(server)))
        slow.start()
        assert proxy.held.wait(20)
        started = time.monotonic()
        for _ in range(5):
            assert reply_to(server, MAIL)[0] == 250
        assert time.monotonic() - started < 5
        assert not replies
    slow.join()
    assert replies[0][0] == 250


def test_a_rule_waits_for_a_store_that_cannot_be_read(server, proxy, clock, tmp_path):
    with proxy.status(500, *READS):
        message_id = send_mail(server.smtp_port, content=LARGE)
        (step,) = server.steps(message_id, until_done=False)
        assert step.outcome == "retry"
        assert step.result.startswith("the store is unavailable: s3://")
        assert "500" in step.result
    clock.advance(timedelta(seconds=5))
    server.app.processing.wake()
    assert outcomes(server.steps(message_id)) == [("rule0", "S3", "done")]
    assert (tmp_path / "mail" / message_id).read_bytes().endswith(LARGE)


@pytest.mark.parametrize("is_bucket", [False, True])
def test_an_object_that_is_gone_is_not_a_bucket_that_is_gone(
    server, proxy, clock, object_server, prefix, is_bucket
):
    with proxy.status(500, *READS):
        message_id = send_mail(server.smtp_port, content=LARGE)
        server.steps(message_id, until_done=False)
    if is_bucket:
        with proxy.status(404, *READS):
            clock.advance(timedelta(seconds=5))
            server.app.processing.wake()
            while (step := server.steps(message_id, until_done=False)[0]).attempts == 1:
                time.sleep(0.05)
        assert step.outcome == "retry"
        return
    object_server.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/{message_id}")
    clock.advance(timedelta(seconds=5))
    server.app.processing.wake()
    (step,) = server.steps(message_id)
    assert step.outcome == "failed"
    assert step.result == f"the content {message_id} is not there any more"


def test_a_store_that_is_slow_to_read_delays_no_other_mail(server, proxy, clock, tmp_path):
    """The answers to reads are held back; mail without a large body is processed meanwhile."""
    with proxy.hold(*READS):
        message_id = send_mail(server.smtp_port, content=LARGE)
        assert proxy.held.wait(20)
        small = send_mail(server.smtp_port)
        assert outcomes(server.steps(small)) == [("rule0", "S3", "done")]
        assert not (tmp_path / "mail" / message_id).exists()
    assert outcomes(server.steps(message_id)) == [("rule0", "S3", "done")]
    assert (tmp_path / "mail" / message_id).read_bytes().endswith(LARGE)


def fetch(server, message_id):
    """The status of the download, and the code of its error."""
    url = f"{server.endpoint}/_sendback/messages/{message_id}/raw"
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]["code"]


def test_the_download_tells_gone_from_unavailable(server, proxy, object_server, prefix):
    message_id = send_mail(server.smtp_port, content=LARGE)
    status, content = fetch(server, message_id)
    assert status == 200
    assert content.endswith(LARGE)
    with proxy.status(503, *READS):
        assert fetch(server, message_id) == (503, "Unavailable")
    object_server.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/{message_id}")
    assert fetch(server, message_id) == (410, "ContentGone")


def test_contents_that_cannot_be_removed_are_removed_later(
    server, proxy, clock, object_server, prefix
):
    message_id = send_mail(server.smtp_port, content=LARGE)
    server.steps(message_id)
    clock.advance(timedelta(hours=25))
    with proxy.status(503, *WRITES, "DELETE"):
        server.run(server.app.housekeeping.sweep())
    assert object_server.keys(prefix) == [message_id]
    assert [row.state for row in rows(server, "SELECT state FROM loose_contents")] == ["unused"]
    server.run(server.app.housekeeping.sweep())
    assert object_server.keys(prefix) == []
    assert rows(server, "SELECT state FROM loose_contents") == []


# --- the database as the content store ---------------------------------------------------------


def test_a_database_that_stops_in_mid_write(tmp_path, clock):
    need("PostgreSQL", available=binaries() is not None)
    with private_server() as database:
        stop_in_mid_write(database, tmp_path, clock)


def stop_in_mid_write(database, tmp_path, clock):
    url = database.create_empty()
    prepare_schema(url)
    store = Place("database", url, tmp_path, ContentAddress("database")).open()

    def stopping():
        yield from pieces(octets(3 * 2**20))
        database.stop("immediate")
        yield from pieces(octets(3 * 2**20))

    async def story():
        kept = await receive(store, "kept", octets(700_000))
        with pytest.raises(StoreUnavailableError):
            await store.contents.keep("broken", stopping())
        with pytest.raises(StoreUnavailableError):
            await read(store, kept, 700_000)
        database.start()
        started = time.monotonic()
        while True:
            try:
                after = await receive(store, f"m{time.time_ns()}", octets(700_000))
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.1)
        assert time.monotonic() - started < 5
        for blob in (kept, after):
            assert await read(store, blob, 700_000) == octets(700_000)
        await age_claims(store)
        await sweep(store, clock)
        assert await ledger(store) == []
        left = text("SELECT count(DISTINCT name) FROM content_chunks")
        assert await store.read(lambda c: c.execute(left).scalar()) == 2

    asyncio.run(story())
    store.close()
