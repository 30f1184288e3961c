"""kill -9 during load: what was acknowledged survives."""

import smtplib
import threading
import time
from collections import Counter

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from tests.partners.clients import MAIL, ses
from tests.partners.listener import Listener
from tests.partners.sendback import Sendback

MAILS = 500
SENDERS = 5


class Load:
    """Sends mails on several connections and bounces each, noting what was acknowledged."""

    def __init__(self, server: Sendback) -> None:
        self._server = server
        self.kept: list[str] = []
        self.bounced: list[str] = []
        self.done = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        client = ses(self._server.endpoint, connect_timeout=2, read_timeout=2)
        try:
            with smtplib.SMTP("127.0.0.1", self._server.smtp_port, timeout=5) as smtp:
                smtp.ehlo()
                for _ in range(MAILS // SENDERS):
                    smtp.mail("ann@sender.example")
                    smtp.rcpt("bob@example.com")
                    code, reply = smtp.data(MAIL)
                    if code != 250:
                        return
                    message_id = reply.decode().split()[1]
                    self.kept.append(message_id)
                    answer = client.send_bounce(
                        OriginalMessageId=message_id,
                        BounceSender="mailer-daemon@example.com",
                        BouncedRecipientInfoList=[
                            {"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}
                        ],
                    )
                    self.bounced.append(answer["MessageId"])
        except (OSError, smtplib.SMTPException, BotoCoreError, ClientError, ResponseParserError):
            return  # the server is gone: what was not acknowledged by then does not count


@pytest.mark.parametrize("kill_after", [30, 150, 350])
def test_what_was_acknowledged_survives_kill_9(tmp_path, kill_after, record_property):
    environment = {"SENDBACK_SEND_BOUNCE_RATE": "0", "SENDBACK_LEASE": "3s"}
    with Listener() as listener:
        server = Sendback(tmp_path, ("--outbound", listener.url), environment).start()
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        load = Load(server)
        load.start()
        while len(load.bounced) < kill_after:
            time.sleep(0.001)
        server.kill()
        load.join()
        assert len(load.kept) < MAILS  # it was killed in the middle
        server.start()
        try:
            listed = server.json("messages", "list", "--limit", "10000")
            assert set(load.kept) <= {message["message_id"] for message in listed}
            arrived = _wait_for_all(listener, set(load.bounced))
        finally:
            server.stop()
    twice = sum(1 for message_id in load.bounced if arrived[message_id] > 1)
    assert all(arrived[message_id] in {1, 2} for message_id in load.bounced)
    record_property("acknowledged", f"{len(load.kept)} mails, {len(load.bounced)} bounces")
    record_property("delivered twice", twice)
    print(f"{len(load.kept)} mails, {len(load.bounced)} bounces, {twice} delivered twice")


def _wait_for_all(listener: Listener, wanted: set[str]) -> "Counter[str]":
    arrived: Counter[str] = Counter()
    deadline = time.monotonic() + 60
    while not wanted <= arrived.keys():
        delivered = listener.next(max(0.1, deadline - time.monotonic()))
        head = delivered.content.split(b"Message-ID: <")[1]
        arrived[head.split(b"@")[0].decode()] += 1
    time.sleep(4)  # longer than a lease: a second delivery would have come by now
    while not listener.messages.empty():
        head = listener.next().content.split(b"Message-ID: <")[1]
        arrived[head.split(b"@")[0].decode()] += 1
    return arrived


def test_sigterm_loses_nothing_and_exits_0(tmp_path):
    environment = {"SENDBACK_SEND_BOUNCE_RATE": "0"}
    with Listener() as listener:
        server = Sendback(tmp_path, ("--outbound", listener.url), environment).start()
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        load = Load(server)
        load.start()
        while len(load.bounced) < 100:
            time.sleep(0.001)
        assert server.stop() == 0
        load.join()
        server.start()
        try:
            listed = server.json("messages", "list", "--limit", "10000")
            assert set(load.kept) <= {message["message_id"] for message in listed}
            arrived = _wait_for_all(listener, set(load.bounced))
        finally:
            server.stop()
    assert set(arrived.values()) == {1}


def test_a_killed_worker_is_replaced(tmp_path):
    """With --workers, the processes share the ports and the store."""
    import os
    import signal
    import subprocess

    with Sendback(tmp_path, ("--workers", "2")) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        pids = subprocess.run(
            ["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        assert len(pids) == 2
        os.kill(int(pids[0]), signal.SIGKILL)
        deadline = time.monotonic() + 20
        while "starting another" not in server.log and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)
        for _ in range(20):
            assert ses(server.endpoint).list_identities()["Identities"] == ["example.com"]
        assert server.stop() == 0


def test_the_rate_limit_holds_across_processes(tmp_path):
    from tests.partners.clients import send_mail

    with Sendback(tmp_path, ("--workers", "3")) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        message = send_mail(server.smtp_port)
        codes: list[str] = []

        def call() -> None:
            try:
                ses(server.endpoint).send_bounce(
                    OriginalMessageId=message,
                    BounceSender="a@example.com",
                    BouncedRecipientInfoList=[
                        {"Recipient": "bob@example.com", "BounceType": "Undefined"}
                    ],
                )
                codes.append("200")
            except ClientError as error:
                codes.append(error.response["Error"]["Code"])

        started = time.monotonic()
        threads = [threading.Thread(target=call) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - started
    assert set(codes) == {"200", "Throttling"}
    assert 1 <= codes.count("200") <= 1 + int(seconds)
