"""What a normal client feels while others attack: `python -m bench.attacks [NAME…]`.

`sendback serve --workers 2` with an active rule that stores (a directory), publishes (a webhook)
and calls a function, and with a DNS server. A normal client sends a mail, asks for /healthz and
bounces the mail, every 100 ms; meanwhile another process carries out one attack, in turn. Printed
are p50, p99 and the maximum of the normal client's operations, and how many workers were replaced.
With --kill, the server is killed (SIGKILL) after each attack and started again: how long until it
is healthy, and how many messages were set aside.
"""

import multiprocessing
import os
import signal
import socket
import sqlite3
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles

from tests.partners.clients import ses
from tests.partners.dns_server import DnsServer
from tests.partners.sendback import Sendback
from tests.partners.webhook import Webhook

from bench.common import folder, machine
from bench.whole_way import signed_request

SECONDS = 8.0
TICK = 0.1
_SETTLE_SECONDS = 60.0
TOPIC = "arn:aws:sns:us-east-1:000000000000:topic"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"
NORMAL = (
    b"From: ann@sender.example\r\nSubject: hi\r\nMessage-ID: <a@sender.example>\r\n\r\nhello\r\n"
)
_SETUP = """
identities = ["example.com"]
active_rule_set = "main"
buckets = {{ mail = "directory:bucket" }}
topics = {{ "{topic}" = "{hook}" }}
functions = {{ "{function}" = "python:function.py:handler" }}
[[rule_sets.main.rules]]
Name = "all"
Actions = [
  {{ S3Action = {{ BucketName = "mail" }} }},
  {{ SNSAction = {{ TopicArn = "{topic}" }} }},
  {{ LambdaAction = {{ FunctionArn = "{function}", InvocationType = "RequestResponse" }} }},
]
"""


def zone() -> str:
    """SPF records and keys that are a burden."""
    long_record = " ".join(f'"{"ip4:192.0.2.1 " * 14}"' for _ in range(80))
    longest_term = " ".join(f'"{"a" * 250}"' for _ in range(240))
    lines = [
        'sender.example. 300 IN TXT "v=spf1 ip4:127.0.0.1 -all"',
        f'long.example. 300 IN TXT "v=spf1 " {long_record}',
        f'longest.example. 300 IN TXT "v=spf1 a:" {longest_term} "!"',
        's._domainkey.sender.example. 300 IN TXT "v=DKIM1; p=YQ=="',
        *(
            f'chain{n}.example. 300 IN TXT "v=spf1 include:chain{n + 1}.example -all"'
            for n in range(40)
        ),
        *(f"mx.example. 300 IN MX {n} host{n}.mx.example." for n in range(2000)),
        'mx.example. 300 IN TXT "v=spf1 mx -all"',
    ]
    return "\n".join(lines)


# --- the attacks ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the server listens."""

    smtp: int
    http: int


Attack = Callable[[Ports], None]


def mail(content: bytes, sender: str = "x@sender.example", recipients: int = 1) -> Attack:
    """Sends the mail, again and again, on a connection of its own."""

    def attack(ports: Ports) -> None:
        with socket.create_connection(("127.0.0.1", ports.smtp), 60) as peer:
            replies = peer.makefile("rb")
            _reply(replies)
            _say(peer, replies, b"EHLO attacker.example\r\n")
            _say(peer, replies, f"MAIL FROM:<{sender}>\r\n".encode())
            commands = b"".join(b"RCPT TO:<u%d@example.com>\r\n" % n for n in range(recipients))
            peer.sendall(commands)
            for _ in range(recipients):
                _reply(replies)
            _say(peer, replies, b"DATA\r\n")
            _say(peer, replies, content + b"\r\n.\r\n")

    return attack


def at_once(count: int, attack: Attack) -> Attack:
    """Carries out so many of these at a time, from threads."""

    def attacks(ports: Ports) -> None:
        with ThreadPoolExecutor(count) as threads:
            for _ in range(20 * count):
                threads.submit(attack, ports)

    return attacks


def request(head: bytes, body: bytes = b"") -> Attack:
    """Sends the octets of a request, and reads what comes."""

    def attack(ports: Ports) -> None:
        with socket.create_connection(("127.0.0.1", ports.http), 60) as peer:
            with suppress(OSError):  # it may be refused before it was sent
                peer.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            with suppress(OSError):
                peer.recv(65536)

    return attack


def connections(count: int, first: bytes = b"", *, http: bool = False) -> Attack:
    """Opens so many and keeps them, from ten addresses."""

    def attack(ports: Ports) -> None:
        held: list[socket.socket] = []
        with suppress(OSError):
            for number in range(count):
                peer = socket.socket()
                peer.settimeout(5)
                peer.bind((f"127.0.1.{number % 10 + 1}", 0))
                peer.connect(("127.0.0.1", ports.http if http else ports.smtp))
                if first:
                    peer.sendall(first)
                held.append(peer)
        time.sleep(2)
        for peer in held:
            peer.close()

    return attack


def octets(content: bytes, pause: float = 0.0, piece: int = 65536, read: int = 0) -> Attack:
    """Sends these to the SMTP port in pieces, reading nothing but what must be read."""

    def attack(ports: Ports) -> None:
        with socket.create_connection(("127.0.0.1", ports.smtp), 30) as peer, suppress(OSError):
            peer.settimeout(10)
            for start in range(0, len(content), piece):
                peer.sendall(content[start : start + piece])
                time.sleep(pause)
            if read:
                peer.recv(read)

    return attack


def bounce(
    parameters: Callable[[str], str], content: bytes = NORMAL, recipients: int = 1
) -> Attack:
    """Has a mail received, and sends a signed request about it."""

    def attack(ports: Ports) -> None:
        message_id = send(ports.smtp, content, recipients)
        with socket.create_connection(("127.0.0.1", ports.http), 60) as peer, suppress(OSError):
            peer.sendall(signed_request(parameters(message_id), ports.http))
            peer.recv(65536)

    return attack


def _signature(rest: bytes) -> bytes:
    return (
        b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.example; s=s; c=relaxed/relaxed; h=From;"
        b" bh=AAAA; " + rest + b"\r\n"
    )


def _members(message_id: str, count: int) -> str:
    pairs = "".join(
        f"&BouncedRecipientInfoList.member.{n}.Recipient=u{n}%40example.com"
        f"&BouncedRecipientInfoList.member.{n}.BounceType=DoesNotExist"
        for n in range(1, count + 1)
    )
    return (
        f"Action=SendBounce&Version=2010-12-01&OriginalMessageId={message_id}"
        f"&BounceSender=m%40example.com{pairs}"
    )


def _form(text: str) -> Callable[[str], str]:
    return lambda _: text


F = b"From: x@sender.example\r\n"
_FIVE = b"".join(_signature(b"l=%d; b=AAAA" % length) for length in range(5)) + F + b"\r\n"
POST = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
ATTACKS: dict[str, Attack] = {
    "none": lambda _: time.sleep(0.5),
    # DKIM, SPF, the body
    "DKIM b= and 250 KB of blanks": mail(_signature(b"b=A" + b" " * 250_000 + b"!") + F),
    "DKIM h= with 20,000 names": mail(_signature(b"h=" + b"a:" * 20_000 + b"From; b=AAAA") + F),
    "1,000 DKIM signatures": mail(_signature(b"b=AAAA") * 1000 + F),
    "10 MB of blanks behind a signature": mail(
        _signature(b"b=AAAA") + F + b"\r\n" + (b" " * 900 + b"\r\n") * 11_000
    ),
    "10 MB of empty lines behind a signature": mail(
        _signature(b"b=AAAA") + F + b"\r\n" + b"\r\n" * 5_000_000
    ),
    "39 MB of blanks behind five signatures": mail(_FIVE + (b" " * 990 + b"\r\n") * 39_000),
    "39 MB of tabs behind five signatures": mail(_FIVE + (b"\t" * 990 + b"\r\n") * 39_000),
    "39 MB of empty lines behind five signatures": mail(_FIVE + b"\r\n" * 19_500_000),
    "DKIM keys and SPF of silent servers": mail(
        b"".join(_signature(b"b=AAAA").replace(b"d=", b"d=s%d.silent." % n) for n in range(5))
        + F
        + b"\r\nhi",
        "x@silent.example",
    ),
    "an SPF record of 16 KB": mail(F + b"\r\nhi", "x@long.example"),
    "an SPF term of 60 KB": mail(F + b"\r\nhi", "x@longest.example"),
    "SPF includes in a chain": mail(F + b"\r\nhi", "x@chain0.example"),
    "2,000 MX in SPF": mail(F + b"\r\nhi", "x@mx.example"),
    # the header section
    "From: @@@… (250 KB)": mail(b"From: " + b"@" * 250_000 + b"\r\n\r\nhi"),
    "To: ((((…": mail(F + b"To: " + b"(" * 200_000 + b"\r\n\r\nhi"),
    "To: a:a:a:…": mail(F + b"To: " + b"a:" * 100_000 + b"\r\n\r\nhi"),
    "Cc: a@b, a@b, …": mail(F + b"Cc: " + b"a@b, " * 50_000 + b"\r\n\r\nhi"),
    "encoded words in punycode": mail(
        F + b"Subject: " + b"=?punycode?q?" + b"a" * 200_000 + b"-9?=\r\n\r\nhi"
    ),
    "100,000 lines that are no fields": mail(b"a\r\n" * 87_000 + F + b"\r\nhi"),
    "20,000 fields": mail(F + b"X-A: b\r\n" * 25_000 + b"\r\nhi"),
    "1,000 recipients": mail(F + b"\r\nhi", recipients=1000),
    "mails of 40 MB": mail(F + b"\r\n" + (b"a" * 76 + b"\r\n") * 500_000),
    # a backlog of work
    "small mails on ten connections": at_once(10, mail(F + b"\r\nhi")),
    # SMTP
    "1,000 idle connections": connections(1000),
    "1,000 unfinished mails": connections(
        1000, b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<u@example.com>\r\nDATA\r\nFrom: x\r\n"
    ),
    "NOOP, as fast as it goes": octets(b"EHLO x\r\n" + b"NOOP\r\n" * 200_000),
    "RCPT of unknown domains": octets(
        b"EHLO x\r\nMAIL FROM:<>\r\n"
        + b"".join(b"RCPT TO:<u%d@x%d.example>\r\n" % (n, n) for n in range(2000))
    ),
    "a line without an end": octets(b"a" * 20_000_000),
    "an octet at a time": octets(b"EHLO x\r\n" * 400, piece=1),
    "STARTTLS and nothing": connections(500, b"EHLO x\r\nSTARTTLS\r\n"),
    # HTTP
    "1,100 idle HTTP connections": connections(1100, http=True),
    "100 unfinished bodies of 2 MB": connections(
        100, POST + b"Content-Length: 2097152\r\n\r\n" + b"a" * 2_000_000, http=True
    ),
    "500,000 header fields of one name": request(POST + b"X: y\r\n" * 500_000),
    "a header field of 10 MB": request(POST + b"X: " + b"y" * 10_000_000 + b"\r\n"),
    "a parameter name of 2,000,000 dots": request(POST, b"a" + b"." * 2_000_000 + b"=b"),
    "1,000,000 parameters": request(POST, b"a=b&" * 500_000),
    "Authorization with 100,000 commas": request(
        POST + b"Authorization: AWS4-HMAC-SHA256 " + b"a=b," * 15_000 + b"\r\n", b"Action=X"
    ),
    "signed: a name of 2,000,000 dots": bounce(
        _form("Action=SendBounce&" + "a." * 1_000_000 + "=b")
    ),
    "signed: 9,000 bounced recipients": bounce(lambda i: _members(i, 9000)),
    "signed: 1,000 bounced recipients of a mail": bounce(
        lambda i: _members(i, 999), recipients=1000
    ),
    "signed: 10,000 rule names": bounce(
        _form(
            "Action=ReorderReceiptRuleSet&Version=2010-12-01&RuleSetName=main"
            + "".join(f"&RuleNames.member.{n}=r{n}" for n in range(1, 10_000))
        )
    ),
    "signed: Accept-Language: a-a-a-…": bounce(
        lambda i: (
            _members(i, 0)
            + "&BouncedRecipientInfoList.member.1.Recipient=u0%40example.com"
            + "&BouncedRecipientInfoList.member.1.BounceType=DoesNotExist"
        ),
        b"From: x@sender.example\r\nAccept-Language: " + b"a-" * 60_000 + b"a\r\n\r\nhi\r\n",
    ),
}


def _say(peer: socket.socket, replies: object, command: bytes) -> None:
    peer.sendall(command)
    _reply(replies)


def _reply(replies: object) -> bytes:
    line: bytes = replies.readline()  # type: ignore[attr-defined]
    while line[3:4] == b"-":
        line = replies.readline()  # type: ignore[attr-defined]
    return line


def send(port: int, content: bytes, recipients: int = 1) -> str:
    """Send a mail; return its message ID."""
    with socket.create_connection(("127.0.0.1", port), 60) as peer:
        replies = peer.makefile("rb")
        _reply(replies)
        _say(peer, replies, b"EHLO client.example\r\n")
        _say(peer, replies, b"MAIL FROM:<ann@sender.example>\r\n")
        for number in range(recipients):
            _say(peer, replies, b"RCPT TO:<u%d@example.com>\r\n" % number)
        _say(peer, replies, b"DATA\r\n")
        peer.sendall(content + b".\r\n")
        reply = _reply(replies)
        if not reply.startswith(b"250"):
            raise OSError(reply.decode())
        return reply.split()[2].decode()


# --- the normal client ----------------------------------------------------------------------------


@dataclass
class NormalClient:
    """Seconds of each operation, and what did not work."""

    ports: Ports
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            started = time.monotonic()
            message_id = self._timed(lambda: send(self.ports.smtp, NORMAL))
            self._timed(self._ask_for_health)
            if message_id:
                self._timed(partial(self._bounce, str(message_id)))
            time.sleep(max(0.0, TICK - (time.monotonic() - started)))

    def _timed(self, work: Callable[[], object]) -> object:
        started = time.monotonic()
        try:
            return work()
        except OSError as error:
            self.failures.append(str(error))
            return None
        finally:
            self.seconds.append(time.monotonic() - started)

    def _ask_for_health(self) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.http}/healthz", timeout=60):
            pass

    def _bounce(self, message_id: str) -> None:
        with socket.create_connection(("127.0.0.1", self.ports.http), 60) as peer:
            peer.sendall(signed_request(_members(message_id, 0) + _OF_NORMAL, self.ports.http))
            answer = peer.recv(65536)
        if b" 200 " not in answer.split(b"\r\n")[0]:
            raise OSError(answer.decode()[:300])


_OF_NORMAL = (
    "&BouncedRecipientInfoList.member.1.Recipient=u0%40example.com"
    "&BouncedRecipientInfoList.member.1.BounceType=DoesNotExist"
)


def _attack_until(name: str, ports: Ports, until: float) -> None:
    while time.monotonic() < until:
        with suppress(OSError):
            ATTACKS[name](ports)


# --- the measurement ------------------------------------------------------------------------------


@contextmanager
def _server(place: Path, dns: DnsServer) -> Iterator[Sendback]:
    environment = {
        "SENDBACK_SEND_BOUNCE_RATE": "0",
        "SENDBACK_LOG_LEVEL": "warning",
        "SENDBACK_DNS": dns.address,
    }
    with Sendback(place, ("--workers", "2"), environment) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        yield server


def _run_client(ports: Ports, until: float) -> NormalClient:
    client = NormalClient(ports)
    client.run(until)
    return client


def _measure(server: Sendback, name: str, clients: ProcessPoolExecutor) -> NormalClient:
    """The client has a process of its own: in this one are the DNS server and the webhook."""
    ports = Ports(server.smtp_port, server.http_port)
    until = time.monotonic() + SECONDS
    attacker = multiprocessing.Process(target=_attack_until, args=(name, ports, until))
    attacker.start()
    time.sleep(0.3)
    client = clients.submit(_run_client, ports, until).result()
    attacker.join(5)
    if attacker.is_alive():
        attacker.kill()
        attacker.join()
    return client


def _settle(server: Sendback) -> None:
    """Wait until the mails of the attack are worked off: the next one is to be felt by itself."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    query = "SELECT count(*) FROM processing WHERE state = 'queued'"
    while time.monotonic() < deadline:
        connection = sqlite3.connect(server.data_dir / "sendback.db")
        try:
            if connection.execute(query).fetchone()[0] == 0:
                return
        finally:
            connection.close()
        time.sleep(0.2)


def _print(name: str, client: NormalClient, restarts: int) -> None:
    cuts = quantiles(client.seconds, n=100, method="inclusive")
    figures = (cuts[49], cuts[98], max(client.seconds))
    texts = [f"  {name:44}", *(f"{seconds * 1000:7.0f}" for seconds in figures), "ms"]
    texts.append(f"  ({len(client.seconds)})")
    if client.failures:
        texts.append(f"  {len(client.failures)} failed: {client.failures[0][:60]}")
    if restarts:
        texts.append(f"  {restarts} workers replaced")
    print(" ".join(texts), flush=True)


def _kill_and_start(server: Sendback) -> str:
    """SIGKILL to all of it, then a new start: how long until /healthz, what was set aside."""
    if server.process is None:
        return ""
    with suppress(ProcessLookupError):
        os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    started = time.monotonic()
    server.start()
    with urllib.request.urlopen(f"{server.endpoint}/healthz", timeout=60):
        pass
    seconds = time.monotonic() - started
    held = [row["message_id"] for row in server.json("messages", "list", "--state", "held")]
    return f"healthy after {seconds:.2f} s, set aside: {len(held)}"


def main(names: list[str] | None = None, *, kill: bool = False) -> None:
    print(f"{'A normal client during attacks':46} {'p50':>7} {'p99':>7} {'max':>7}")
    with (
        tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=folder()) as place,
        DnsServer(zone()) as dns,
        Webhook() as hook,
        _server(Path(place), dns) as server,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as clients,
    ):
        clients.submit(_run_client, Ports(0, 0), 0.0).result()
        Path(place, "function.py").write_text(
            'def handler(event, context):\n    return {"disposition": "CONTINUE"}\n'
        )
        Path(place, "setup.toml").write_text(
            _SETUP.format(topic=TOPIC, hook=hook.url, function=FUNCTION)
        )
        server.run("rules", "apply", str(Path(place, "setup.toml")))
        time.sleep(1.5)
        for name in names or ATTACKS:
            restarts = server.log.count("starting another")
            client = _measure(server, name, clients)
            _print(name, client, server.log.count("starting another") - restarts)
            _settle(server)
            if kill:
                print(f"    killed: {_kill_and_start(server)}", flush=True)


if __name__ == "__main__":
    print(machine())
    arguments = [argument for argument in sys.argv[1:] if argument != "--kill"]
    main(arguments or None, kill="--kill" in sys.argv)
