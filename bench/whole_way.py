"""From receipt to a bounce accepted by smtp-sink, in mails a second; Postfix beside it.

Sendback: a client process sends mails by SMTP and bounces each with a signed SendBounce as soon as
it has its ID. Postfix: mail for a user that does not exist, which it bounces to the same sink.
"""

import asyncio
import hashlib
import hmac
import multiprocessing
import re
import subprocess
import time
from datetime import UTC, datetime

from tests.partners.postfix import Postfix

from bench.common import bounce_form, count, row, sendback, sink

MAILS = 2000
CONNECTIONS = 20
ROUNDS = 3
_CONTENT = b"From: a@b.example\r\nMessage-ID: <x@b.example>\r\n\r\n" + (b"x" * 78 + b"\r\n") * 62


def main() -> None:
    print(f"The whole way, {CONNECTIONS} connections, 5 KB mails, bounces to smtp-sink")
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        with sink() as port:
            ours.append(_sendback(port))
        with sink() as port:
            theirs.append(_postfix(port))
    middle, other = row("Sendback", ours, "mails/s"), row("Postfix", theirs, "mails/s")
    print(f"  ratio Sendback / Postfix: {middle / other:.2f}")


def _sendback(port: int) -> float:
    with sendback("--outbound", f"smtp://127.0.0.1:{port}") as server:
        client = multiprocessing.Process(
            target=_client, args=(server.smtp_port, server.http_port, MAILS)
        )
        start = time.perf_counter()
        client.start()
        client.join()
        while count(server.data_dir, "delivered") < MAILS:
            time.sleep(0.05)
        return MAILS / (time.perf_counter() - start)


def _client(smtp_port: int, http_port: int, mails: int) -> None:
    asyncio.run(_all(smtp_port, http_port, mails))


async def _all(smtp_port: int, http_port: int, mails: int) -> None:
    each = mails // CONNECTIONS
    await asyncio.gather(*(_one(smtp_port, http_port, each) for _ in range(CONNECTIONS)))


async def _one(smtp_port: int, http_port: int, mails: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", smtp_port)
    api_reader, api_writer = await asyncio.open_connection("127.0.0.1", http_port)
    await reader.readline()
    writer.write(b"HELO x\r\n")
    await reader.readline()
    for _ in range(mails):
        writer.write(b"MAIL FROM:<ann@sender.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
        for _ in range(3):
            await reader.readline()
        writer.write(_CONTENT + b".\r\n")
        message_id = (await reader.readline()).split()[2].decode()
        api_writer.write(signed_request(bounce_form(message_id), http_port))
        head = await api_reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
        body = await api_reader.readexactly(length)
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise SystemExit(body.decode())
    writer.close()
    api_writer.close()


def signed_request(body: str, port: int) -> bytes:
    """A POST of the form, signed with the development key."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/us-east-1/ses/aws4_request"
    canonical = (
        f"POST\n/\n\nhost:127.0.0.1:{port}\nx-amz-date:{now}\n\nhost;x-amz-date\n"
        + hashlib.sha256(body.encode()).hexdigest()
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = b"AWS4test"
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    return (
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Amz-Date: {now}\r\n"
        f"Authorization: AWS4-HMAC-SHA256 Credential=test/{scope}, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _postfix(port: int) -> float:
    extra = (
        "relay_domains = example.com\n"
        "transport_maps = inline:{ { example.com = error:5.1.1 no such user } }\n"
        f"relayhost = [127.0.0.1]:{port}\n"
        "smtpd_reject_unlisted_recipient = no\n"
        "in_flow_delay = 0\n"
    )
    with Postfix(extra) as postfix:
        command = [
            "smtp-source", "-s", str(CONNECTIONS), "-m", str(MAILS), "-l", "5120", "-d",
            "-f", "ann@sender.example", "-t", "bob@example.com", f"127.0.0.1:{postfix.port}",
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True)
        while postfix.log.count("status=sent") < MAILS:
            time.sleep(0.1)
        return MAILS / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
