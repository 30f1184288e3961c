"""What the worst requests cost, and what a normal client feels of them.

First the longest time for which one request holds the event loop of a server in this process, in
CPU time, so that other programs on the machine do not count; the least of four tries. Then, with
`sendback serve --workers 2`, the times of a normal client that sends a mail, reads /healthz and
calls SendBounce, each ten times a second, while two processes repeat the attack.
`python -m bench.request_attacks NAME …` runs those whose names begin so; SECONDS is the
environment's.
"""

import asyncio
import contextlib
import gc
import json
import logging
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.partners.clients import send_mail, ses
from tests.partners.raw_http import HEALTH, RawHttp
from tests.partners.sendback import Sendback
from tests.partners.server import Server

from bench.common import machine, sendback

SECONDS = float(os.environ.get("SECONDS", "4"))
SIZE = 2 * 2**20 - 200
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
SENDER = "mailer-daemon@example.com"
Attack = Callable[[Any], object]  # given where the server is


@dataclass(frozen=True)
class _Target:
    """What attacks look at of a server."""

    endpoint: str
    http_port: int
    smtp_port: int


_FORK = multiprocessing.get_context("fork")


def main(names: list[str] | None = None) -> None:
    chosen = {
        name: attack
        for name, attack in ATTACKS.items()
        if not names or any(name.startswith(wanted) for wanted in names)
    }
    print(f"Attacks by HTTP; {machine()}")
    print(f"  {'milliseconds of CPU':34} longest hold of the event loop")
    _measure_holds(chosen)
    print(f"  {'milliseconds of a normal client':34}   p50    p99     max  failed")
    for name, attack in chosen.items():
        with sendback("--workers", "2") as server:
            _measure(name, server, attack)


def _measure_holds(attacks: dict[str, Attack]) -> None:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as place:
        flags = {"send_bounce_rate": "0", "workers": "1"}
        server = Server(data_dir=place, **flags).start()
        server.ses.verify_domain_identity(Domain="example.com")
        gc.collect()
        gc.freeze()  # as a server does when it has started
        target = _Target(server.endpoint, server.addresses.http.port, server.smtp_port)
        for name, attack in attacks.items():
            least = min(_hold(server, attack, target) for _ in range(4))
            print(f"  {name:34} {least * 1000:6.1f}", flush=True)
        server.stop()
    logging.disable(logging.NOTSET)


def _hold(server: Server, attack: Attack, target: Any) -> float:
    """The most CPU seconds between two runs of a task that wants to run each millisecond."""
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        last = time.process_time()
        while process.is_alive():
            await asyncio.sleep(0.001)
            now = time.process_time()
            longest, last = max(longest, now - last), now

    process = _FORK.Process(target=attack, args=(target,))
    process.start()
    server.run(asyncio.wait_for(beat(), 20))
    process.join()
    return longest


def _measure(name: str, server: Sendback, attack: Attack) -> None:
    message_id = send_mail(server.smtp_port)
    # In processes of their own: in threads they would hold up the client that is measured.
    attackers = [_FORK.Process(target=_repeat, args=(attack, server)) for _ in range(2)]
    for process in attackers:
        process.start()
    time.sleep(0.5)
    found, failed = _normal(server, message_id)
    for process in attackers:
        process.kill()
        process.join()
    found.sort()
    middle, high = found[len(found) // 2], found[min(len(found) - 1, len(found) * 99 // 100)]
    print(f"  {name:34} {middle:6.1f} {high:6.1f} {found[-1]:7.1f} {failed:5}", flush=True)


def _repeat(attack: Attack, server: Sendback) -> None:
    while True:
        try:
            attack(server)
        except OSError:  # refused, reset: what it is about
            time.sleep(0.01)


def _normal(server: Any, message_id: str) -> tuple[list[float], int]:
    """Milliseconds of each call, and how many failed."""
    client = ses(server.endpoint, connect_timeout=20, read_timeout=60)
    bounced = [{"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}]

    def health() -> None:
        with RawHttp(server.http_port, HEALTH) as connection:
            assert connection.reply().status == 200

    calls: list[Callable[[], object]] = [
        lambda: send_mail(server.smtp_port),
        health,
        lambda: client.send_bounce(
            OriginalMessageId=message_id,
            BounceSender=SENDER,
            BouncedRecipientInfoList=bounced,
        ),
    ]
    found: list[float] = []
    failed = 0
    end = time.monotonic() + SECONDS

    def series(call: Callable[[], object]) -> None:
        nonlocal failed
        while (begun := time.monotonic()) < end:
            try:
                call()
            except Exception:  # noqa: BLE001 - whatever fails is counted
                failed += 1
            found.append((time.monotonic() - begun) * 1000)
            time.sleep(max(0.0, 0.1 - (time.monotonic() - begun)))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(series, calls))
    return found, failed


# --- attacks -----------------------------------------------------------------------------------


def _send(server: Any, data: bytes) -> None:
    with RawHttp(server.http_port, data) as client:
        client.socket.settimeout(60)
        client.read_all()


def _unsigned(head: bytes, body: bytes = b"") -> Attack:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    request = head + length + b"Connection: close\r\n\r\n" + body
    return lambda server: _send(server, request)


def _signed(body: bytes) -> Attack:
    def attack(server: Any) -> None:
        request = AWSRequest("POST", server.endpoint + "/", data=body)
        SigV4Auth(Credentials("test", "test"), "ses", "us-east-1").add_auth(request)
        request.headers["Host"] = f"127.0.0.1:{server.http_port}"
        lines = [f"{name}: {value}\r\n" for name, value in request.headers.items()]
        head = "POST / HTTP/1.1\r\n" + "".join(lines)
        _send(
            server,
            head.encode() + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body,
        )

    return attack


def _form(action: str, pairs: list[tuple[str, str]]) -> Attack:
    body = urlencode([("Action", action), ("Version", "2010-12-01"), *pairs]).encode()
    assert len(body) <= 2 * 2**20, len(body)
    return _signed(body)


def _recipients(count: int, *, same: bool = False) -> list[tuple[str, str]]:
    pairs = [("OriginalMessageId", "x"), ("BounceSender", SENDER)]
    for number in range(1, count + 1):
        path = f"BouncedRecipientInfoList.member.{number}"
        pairs.append((f"{path}.Recipient", f"u{0 if same else number}@example.com"))
        pairs.append((f"{path}.BounceType", "DoesNotExist"))
    return pairs


def _fill(unit: str) -> bytes:
    return (unit * (SIZE // len(unit))).encode()


def _language(server: Any) -> None:
    mail = (
        b"From: a@sender.example\r\nAccept-Language: "
        + b"\r\n ".join([b"a-" * 480] * 125)
        + b"\r\n"
    )
    message_id = send_mail(server.smtp_port, content=mail + b"\r\nx\r\n")
    with contextlib.suppress(Exception):
        ses(server.endpoint, read_timeout=60).send_bounce(
            OriginalMessageId=message_id,
            BounceSender=SENDER,
            BouncedRecipientInfoList=[
                {"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}
            ],
        )


def _policy(server: Any) -> None:
    """A policy of patterns on the sender's identity, and a User-Agent to hold them against."""
    client = ses(server.endpoint, read_timeout=60, user_agent_extra="ab/ " * 400)
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "ses:*",
        "Resource": "arn:aws:ses:us-east-1:000000000000:identity/example.org",
        "Condition": {"StringLike": {"aws:UserAgent": ["*?a*?b*z"] * 300}},
    }
    document = json.dumps({"Statement": statement}, separators=(",", ":"))
    client.verify_domain_identity(Domain="example.org")
    for number in range(20):
        client.put_identity_policy(Identity="example.org", PolicyName=f"p{number}", Policy=document)
    with contextlib.suppress(Exception):
        client.send_bounce(
            OriginalMessageId=send_mail(server.smtp_port),
            BounceSender="a@example.org",
            BouncedRecipientInfoList=[
                {"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}
            ],
        )


@contextlib.contextmanager
def _many(server: Any, count: int, data: bytes, source: str) -> Iterator[list[socket.socket]]:
    sockets = []
    try:
        for _ in range(count):
            sockets.append(
                socket.create_connection(("127.0.0.1", server.http_port), 5, (source, 0))
            )
            sockets[-1].sendall(data)
        yield sockets
    finally:
        for each in sockets:
            each.close()


def _idle(server: Any) -> None:
    with _many(server, 700, b"", "127.0.0.2"):
        time.sleep(1)


def _unfinished(server: Any) -> None:
    body = b"x" * (2**21 - 1)
    head = POST + b"Content-Length: %d\r\n\r\n" % 2**21
    with _many(server, 30, head + body, "127.0.0.2"):
        time.sleep(0.5)


def _drip(server: Any) -> None:
    with _many(server, 100, POST + b"a: ", "127.0.0.2") as sockets:
        for _ in range(20):
            for each in sockets:
                each.sendall(b"x")
            time.sleep(0.02)


ATTACKS: dict[str, Attack] = {
    "nothing": lambda _: time.sleep(0.05),
    "header: 500,000 of one name": _unsigned(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500_000),
    "header: 200 KB in one field": _unsigned(b"GET / HTTP/1.1\r\na: " + b"b " * 100_000 + b"\r\n"),
    "header: no end": _unsigned(b"GET / HTTP/1.1\r\na: " + b"b" * 2**21),
    "pipelined requests": lambda server: _send(server, HEALTH * 14_000),
    "chunks of one octet": _unsigned(
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 200_000
    ),
    "authorization: commas": _unsigned(
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: AWS4-HMAC-SHA256 " + b"," * 16_000 + b"\r\n"
    ),
    "not HTTP": lambda server: _send(server, b"\x16\x03\x01" * 1000),
    "unsigned form: ampersands": _unsigned(POST, b"a=&" * (SIZE // 3)),
    "unsigned form: dots": _unsigned(POST, b"a." * (SIZE // 2) + b"=x"),
    "form: %41": _signed(b"Action=" + _fill("%41")[: SIZE // 2]),
    "form: +": _signed(b"Action=" + _fill("+")),
    "form: dots in a name": _form("ListIdentities", [("a." * 900_000, "x")]),
    "form: 20,000 parameters": _form(
        "ListIdentities", [(f"a{number}.b.c", "x") for number in range(19_990)]
    ),
    "form: 9,900 recipients": _form("SendBounce", _recipients(9_900)),
    "form: 9,900 times one recipient": _form("SendBounce", _recipients(9_900, same=True)),
    "form: 9,900 extension fields": _form(
        "SendBounce",
        [
            *_recipients(1),
            ("MessageDsn.ReportingMta", "dns; a.example"),
            *((f"MessageDsn.ExtensionFields.member.{n}.Name", "X-A") for n in range(1, 9_900)),
        ],
    ),
    "form: 10,000 rule names": _form(
        "ReorderReceiptRuleSet",
        [
            ("RuleSetName", "one"),
            *((f"RuleNames.member.{n}", f"r{n}") for n in range(1, 10_001)),
        ],
    ),
    "form: 10,000 identities": _form(
        "GetIdentityDkimAttributes",
        [(f"Identities.member.{n}", f"d{n}.example") for n in range(1, 10_001)],
    ),
    "form: explanation of 1.9 MB": _form(
        "SendBounce", [*_recipients(1), ("Explanation", "x\n" * 400_000)]
    ),
    "form: CIDR of colons": _form(
        "CreateReceiptFilter",
        [
            ("Filter.Name", "f"),
            ("Filter.IpFilter.Policy", "Block"),
            ("Filter.IpFilter.Cidr", ":" * 60_000 + "x"),
        ],
    ),
    "policies of wildcards": _policy,
    "Accept-Language of 120 KB": _language,
    "1,400 idle connections": _idle,
    "60 unfinished bodies of 2 MB": _unfinished,
    "200 dripping connections": _drip,
}

if __name__ == "__main__":
    main(sys.argv[1:])
