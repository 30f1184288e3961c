"""Rows that kill their worker: after a few times they are set aside, all others are done.

The worker is killed for real, by SIGKILL, at the moment when it works on the row: by a function
that it calls, by the mail server that it delivers to, by the DNS server that it asks.
"""

import contextlib
import json
import os
import signal
import smtplib
import time
from collections import Counter

import pytest

from sendback.store.engine.leasing import DIED, MOST_TRIES
from tests.partners.clients import send_mail
from tests.partners.dns_server import DnsServer
from tests.partners.listener import Listener
from tests.partners.queue import fill
from tests.partners.sendback import Sendback, run_cli
from tests.partners.waiting import wait_for

MESSAGES = 50
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"
SETUP = f"""
identities = ["example.com"]
active_rule_set = "main"
functions = {{ "{FUNCTION}" = "python:kill.py:handler" }}

[[rule_sets.main.rules]]
Name = "all"
Actions = [
  {{ LambdaAction = {{ FunctionArn = "{FUNCTION}", InvocationType = "RequestResponse" }} }},
  {{ BounceAction = {{ SmtpReplyCode = "550", Message = "No", Sender = "m@example.com" }} }},
]
"""
# Kills the server's process, which is its parent, for mail with a certain subject.
HANDLER = """
import os, signal, time

def handler(event, context):
    subject = event["Records"][0]["ses"]["mail"]["commonHeaders"]["subject"]
    time.sleep(0.02)
    if subject.startswith("poison"):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(5)
    return None
"""
ENVIRONMENT = {
    "SENDBACK_DNS": "off",
    "SENDBACK_LEASE": "1s",
    "SENDBACK_LOG_LEVEL": "warning",
    "SENDBACK_PRIVATE_TARGETS": "true",
}


def keep_running(server, condition, seconds=90):
    """Starts the server again whenever it was killed, until the condition holds."""
    deadline = time.monotonic() + seconds
    deaths = 0
    while not condition():
        assert time.monotonic() < deadline, server.log[-3000:]
        if server.process.poll() is not None:
            deaths += 1
            with contextlib.suppress(RuntimeError):  # killed before it was ready
                server.start()
        time.sleep(0.05)
    return deaths


def states(server, table):
    query = f"SELECT state, count(*) FROM {table} GROUP BY state"
    return Counter(dict(server.query(query)))


def with_rules(tmp_path, *flags, **environment):
    (tmp_path / "kill.py").write_text(HANDLER)
    (tmp_path / "setup.toml").write_text(SETUP)
    server = Sendback(tmp_path, flags, {**ENVIRONMENT, **environment}).start()
    server.run("rules", "apply", str(tmp_path / "setup.toml"))
    time.sleep(1.1)  # a server follows within a second
    return server


def send(server, poison):
    """All on one connection, as fast as they are taken; returns the IDs and those of the poison."""
    ids, poisoned = [], []
    with smtplib.SMTP("127.0.0.1", server.smtp_port, local_hostname="c.example") as smtp:
        smtp.ehlo()
        for number in range(MESSAGES):
            subject = "poison" if number in poison else "good"
            content = f"From: a@sender.example\r\nSubject: {subject}\r\n\r\nx\r\n".encode()
            smtp.mail("ann@sender.example")
            smtp.rcpt("bob@example.com")
            code, reply = smtp.data(content)
            assert code == 250
            ids.append(reply.decode().split()[1])
            if number in poison:
                poisoned.append(ids[-1])
    return ids, poisoned


@pytest.mark.parametrize("workers", [1, 2])
def test_a_message_that_kills_its_worker_is_held_and_all_others_are_done(tmp_path, workers):
    server = with_rules(tmp_path, "--workers", str(workers))
    # The last one, so that the server lives until all have been received.
    ids, poisoned = send(server, {MESSAGES - 1})
    wanted = Counter({"done": MESSAGES - 1, "held": 1})
    deaths = keep_running(server, lambda: states(server, "processing") == wanted)
    try:
        (row,) = server.json("messages", "list", "--state", "held")
        assert row["message_id"] == poisoned[0]
        assert server.json("messages", "show", poisoned[0])["reason"] == DIED
        outbox = server.json("outbox", "list", "--limit", "1000")
        # Nothing behind the function was done for it; the bounces of all others are there, once.
        bounced = Counter(entry["original_message_id"] for entry in outbox)
        assert bounced == Counter(set(ids) - set(poisoned))
        # Retried by hand once the function is mended, it is done too.
        (tmp_path / "kill.py").write_text("def handler(event, context): return None\n")
        assert "due now" in server.run("messages", "retry", poisoned[0]).stdout
        wait_for(lambda: states(server, "processing") == Counter({"done": MESSAGES}), 20)
    finally:
        server.stop()
    if workers == 1:
        assert deaths == MOST_TRIES
    print(f"{workers} workers: {deaths} deaths of the server, {len(ids) - 1} of {len(ids)} done")


def test_several_poisoned_messages_are_held_and_no_others(tmp_path):
    """Among them one whose processing is dropped, so that its retry never comes."""
    server = with_rules(tmp_path)
    # Two at the end, so that all are received: only one is worked on before the server dies.
    ids, poisoned = send(server, {MESSAGES - 2, MESSAGES - 1})
    wanted = Counter({"done": MESSAGES - 2, "held": 2})
    deaths = keep_running(server, lambda: states(server, "processing") == wanted)
    try:
        held = server.json("messages", "list", "--state", "held")
        assert {row["message_id"] for row in held} == set(poisoned)
        assert "2 messages are dropped" in server.run("messages", "drop", "--all").stdout
        assert server.json("messages", "list", "--state", "held") == []
        assert len(server.json("messages", "list", "--state", "dropped")) == 2
    finally:
        server.stop()
    assert deaths <= 2 * MOST_TRIES
    print(f"{deaths} deaths of the server for two poisoned messages")


class Killer(Listener):
    """A mail server that kills its client for a certain recipient."""

    server: Sendback

    async def handle_RCPT(self, _server, session, envelope, address, options):
        if address.startswith("poison"):
            os.kill(self.server.process.pid, signal.SIGKILL)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"


def test_a_bounce_that_kills_its_worker_is_held_and_all_others_arrive(tmp_path):
    recipients = [f"ann{number}@d{number % 7}.example" for number in range(MESSAGES)]
    recipients[20] = "poison@d1.example"
    with Killer() as killer:
        server = Sendback(tmp_path, ("--outbound", killer.url), ENVIRONMENT)
        killer.server = server
        fill(server.data_dir, recipients)
        server.start()
        wanted = Counter({"delivered": MESSAGES - 1, "held": 1})
        deaths = keep_running(server, lambda: states(server, "outbox") == wanted)
        try:
            (row,) = server.json("outbox", "list", "--state", "held")
            assert row["recipient"] == "poison@d1.example"
            assert row["last_reply"] == DIED
            assert server.json("outbox", "domains") == []  # its domain is not held up
        finally:
            server.stop()
        arrived = Counter()
        while not killer.messages.empty():
            arrived.update(killer.next().recipients)
    assert set(arrived) == set(recipients) - {"poison@d1.example"}
    assert deaths == MOST_TRIES
    print(f"{deaths} deaths; arrived twice: {sum(1 for n in arrived.values() if n > 1)}")


class KillingDns(DnsServer):
    """Kills who asks for a certain name."""

    server: Sendback
    kills = True

    def answer(self, data, *, by_udp=False):
        if self.kills and b"poison" in data:
            os.kill(self.server.process.pid, signal.SIGKILL)
            return None
        return super().answer(data, by_udp=by_udp)


def test_an_identity_whose_check_kills_its_worker_is_set_aside(tmp_path):
    names = [f"d{number}.example" for number in range(30)]
    with KillingDns("") as dns:
        environment = {
            **ENVIRONMENT,
            "SENDBACK_VERIFICATION": "proved",
            "SENDBACK_DNS": dns.address,
        }
        server = Sendback(tmp_path, (), environment).create()
        dns.server = server
        place = ("--data-dir", str(server.data_dir))
        for name in (*names, "poison.example"):
            done = run_cli("identities", "verify", name, "--json", *place, environment=environment)
            token = json.loads(done.stdout)["verification_token"]
            dns.put(f"_amazonses.{name}", "TXT", f'"{token}"')

        def settled():
            rows = server.query("SELECT identity, status, reason, due_at FROM identity_checks")
            found = {row[0]: row[1:] for row in rows}
            bad = found.pop("poison.example")
            proved = all(status == "Success" for status, _, _ in found.values())
            return proved and bad == ("Failed", DIED, None)

        # Each start comes an hour after the last death: claims end after minutes.
        hours, deaths = 0, 0
        deadline = time.monotonic() + 90
        while not settled():
            assert time.monotonic() < deadline, server.log[-3000:]
            if server.process is None or server.process.poll() is not None:
                deaths += server.process is not None
                server.environment["SENDBACK_CLOCK_OFFSET"] = f"{hours}h"
                hours += 1
                with contextlib.suppress(RuntimeError):
                    server.start()
            time.sleep(0.05)
        server.stop()
        assert deaths == MOST_TRIES
        # By hand it is looked for again, and found once nobody is killed any more.
        dns.kills = False
        done = run_cli("identities", "check", "poison.example", *place, environment=environment)
        assert "Success" in done.stdout


def test_mail_goes_on_while_a_suspect_waits(tmp_path):
    """A server that has just died of a message takes new mail and works on it at once."""
    server = with_rules(tmp_path)
    poison = send_mail(
        server.smtp_port, content=b"From: a@sender.example\r\nSubject: poison\r\n\r\nx\r\n"
    )
    server.process.wait(20)
    server.start()
    for _ in range(3):
        message = send_mail(server.smtp_port)
        wait_for(
            lambda found=message: (
                server.process.poll() is not None
                or server.json("messages", "show", found)["processing"] == "done"
            ),
            20,
        )
        if server.process.poll() is not None:
            server.start()
    assert server.json("messages", "show", poison)["processing"] in {"queued", "held"}
    server.stop()
