"""Large mail goes through its rules piece by piece, and a body that is gone does not stay."""

import json
import socket
import threading
import tracemalloc
from datetime import timedelta

import pytest

from sendback.store.messages.messages import FindBody
from tests.partners.awkward import Awkward
from tests.partners.dns_server import DnsServer
from tests.partners.webhook import Webhook
from tests.service.test_processing import ASK, PUBLISH, STORE, outcomes, setup

MEGABYTE = 2**20
SIZE = 12 * MEGABYTE
LINE = b"x" * 70 + b"\r\n"
HEADER = b"From: ann@sender.example\r\nSubject: large\r\n"
ZONE = """
sender.example. 300 IN TXT "v=spf1 ip4:127.0.0.1 -all"
s._domainkey.sender.example. 300 IN TXT "v=DKIM1; p=YQ=="
"""
COMMANDS = ("HELO x", "MAIL FROM:<ann@sender.example>", "RCPT TO:<b@example.com>", "DATA")
DELIVER = (
    '{ ConnectAction = { InstanceARN = "arn:aws:connect:us-east-1:000000000000:instance/'
    '12345678-1234-1234-1234-123456789012", IAMRoleARN = "arn:aws:iam::000000000000:role/r" } }'
)


@pytest.fixture
def ruled(running):
    def start(*rules, targets=None, **flags):
        server = running(
            **{"dns": "off", "send_bounce_rate": "0", "check_targets": "false", **flags}
        )
        server.set_up(setup(*rules, **(targets or {})))
        return server

    return start


def send_large(server, size=SIZE, header=HEADER, line=LINE):
    """Sends it piece by piece, so that this process has it nowhere whole; answers its ID."""
    with socket.create_connection(("127.0.0.1", server.smtp_port), timeout=60) as connection:
        with connection.makefile("rb") as replies:
            assert replies.readline().startswith(b"220")
            for command in COMMANDS:
                connection.sendall(command.encode() + b"\r\n")
                assert replies.readline()[:3] in {b"250", b"354"}
            connection.sendall(header + b"\r\n")
            piece = line * (65536 // len(line))
            for _ in range(size // len(piece)):
                connection.sendall(piece)
            connection.sendall(b".\r\n")
            reply = replies.readline()
    assert reply.startswith(b"250"), reply
    return reply.split()[2].decode()


def send_many(server, count):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(send_large(server))) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == count
    return found


def peak_of(work):
    """How many octets more than before were in memory at once, as Python allocated them."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_many_large_mails_to_a_directory(ruled, tmp_path):
    """Together no more than two of them in memory; they are 144 MB."""
    server = ruled(([], [STORE]), targets={"buckets": f"directory:{tmp_path}/mail"})
    ids = []

    def work():
        ids.extend(send_many(server, 12))
        for message_id in ids:
            assert outcomes(server.steps(message_id)) == [("rule0", "S3", "done")]

    assert peak_of(work) < 2 * SIZE
    for message_id in ids:
        stored = (tmp_path / "mail" / message_id).read_bytes()
        assert stored.endswith(b"\r\n\r\n" + LINE * (65536 // 72) * (SIZE // 65520))


def test_a_large_mail_to_a_mailbox(ruled):
    with Awkward() as peer:
        server = ruled(([], [DELIVER]), mailbox_server=peer.url)
        message_id = send_large(server)
        assert outcomes(server.steps(message_id)) == [("rule0", "Connect", "done")]
        assert peer.contents[0].endswith(LINE)
        assert len(peer.contents[0]) > SIZE - 65536


def test_a_large_mail_is_authenticated_where_it_is(ruled, tmp_path):
    """The process is given the file; the signature covers a body that ends in 12 MB of blanks."""
    signature = (
        b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=sender.example; s=s; h=from; "
        b"bh=YQ==; b=YQ==\r\n"
    )
    with DnsServer(ZONE) as dns:
        targets = {"buckets": f"directory:{tmp_path}/mail"}
        server = ruled(([], [STORE]), targets=targets, dns=dns.address)
        ids = []

        def work():
            ids.append(send_large(server, header=signature + HEADER, line=b" " * 998 + b"\r\n"))
            server.steps(ids[0])

        assert peak_of(work) < SIZE / 2
    stored = (tmp_path / "mail" / ids[0]).read_bytes()
    assert b"Authentication-Results: mx.example.com;\r\n spf=pass" in stored
    assert b"dkim=fail header.i=@sender.example;" in stored


def test_a_notification_of_a_large_mail_reads_nothing(ruled):
    """SES bounces mail of over 150 KB instead of publishing it."""
    with Webhook() as hook:
        server = ruled(([], [PUBLISH]), targets={"topics": hook.url})
        lose_bodies(server)
        message_id = send_large(server, MEGABYTE)
        (step,) = server.steps(message_id)
        assert (step.outcome.value, hook.count) == ("done", 0)
        assert "bounce" in step.result
    (bounce,) = server.outbox()
    assert b"5.3.4" in bounce.content


@pytest.mark.parametrize(("size", "published"), [(140 * 1024, True), (200 * 1024, False)])
def test_the_limit_of_notifications_is_that_of_the_content(ruled, size, published):
    with Webhook() as hook:
        server = ruled(([], [PUBLISH]), targets={"topics": hook.url})
        message_id = send_large(server, size)
        server.steps(message_id)
        assert hook.count == int(published)
        if published:
            message = json.loads(json.loads(hook.next()[1])["Message"])
            assert message["content"].endswith("x\r\n")
            assert len(message["content"]) > size - 65536


def lose_bodies(server):
    """From now on each is gone as soon as it is kept."""
    contents = server.app.store.contents
    keep = contents.keep

    async def lose(name, pieces):
        blob = await keep(name, pieces)
        await contents.remove([blob])
        return blob

    contents.keep = lose


def remove_body(server, message_id):
    store = server.app.store
    body = server.run(store.read(FindBody(server.settings.account_id, message_id)))
    server.run(store.contents.remove([body.blob]))


def test_a_body_that_is_gone_fails_for_good_and_the_rest_goes_on(ruled, tmp_path):
    """Lost with its disk, say. The steps behind go on, and nothing is retried for hours."""
    (tmp_path / "mail").write_text("in the way")
    with Webhook() as hook, Awkward() as peer:
        targets = {"buckets": f"directory:{tmp_path}/mail", "functions": hook.url}
        server = ruled(
            ([], [STORE, DELIVER, ASK]),
            targets=targets,
            mailbox_server=peer.url,
            action_retry_first="1s",
        )
        message_id = send_large(server, MEGABYTE)
        server.steps(message_id, until_done=False)
        (tmp_path / "mail").unlink()
        remove_body(server, message_id)
        server.app.clock.advance(timedelta(seconds=5))
        steps = server.steps(message_id)
    assert outcomes(steps)[0] == ("rule0", "S3", "failed")
    assert steps[0].result == f"the content {message_id} is not there any more"
    assert outcomes(steps)[2] == ("rule0", "Lambda", "done")


def test_a_body_that_is_gone_before_the_verdicts(ruled, tmp_path, clock):
    """They are not known, which is not the same as none: PROCESSING_FAILED."""
    with DnsServer(ZONE) as dns:
        with Webhook((500, b"", 0.0)) as hook:
            signature = (
                b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.example; s=s; h=from; bh=YQ==; "
                b"b=YQ==\r\n"
            )
            server = ruled(([], [ASK]), targets={"functions": hook.url}, dns=dns.address)
            lose_bodies(server)
            send_large(server, MEGABYTE, signature + HEADER)
            receipt = json.loads(hook.next()[1])["Records"][0]["ses"]["receipt"]
    assert receipt["spfVerdict"] == {"status": "PASS"}
    assert receipt["dkimVerdict"] == {"status": "PROCESSING_FAILED"}
