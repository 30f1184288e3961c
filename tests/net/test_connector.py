"""The guarded way out: private addresses, time, redirects."""

import asyncio
import time

import pytest

from sendback.net.connector import Connector, ConnectorError, ForbiddenAddressError
from tests.partners.webhook import Webhook


def post(url, *, allow_private=False, seconds=5.0):
    async def main():
        connector = Connector(allow_private=allow_private)
        try:
            return await connector.post(url, {"X-A": "b"}, b"content", seconds)
        finally:
            await connector.close()

    return asyncio.run(main())


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254",
     "100.64.0.1", "0.0.0.0", "[::1]", "[fd00::1]", "[fe80::1]", "[::ffff:127.0.0.1]",
     "[::ffff:169.254.169.254]", "224.0.0.1", "2130706433", "0x7f.1"],
)  # fmt: skip
def test_private_addresses_are_not_connected_to(host):
    with Webhook() as hook:
        with pytest.raises(ForbiddenAddressError) as raised:
            post(f"http://{host}:{hook.port}/")
        assert raised.value.final
        assert hook.count == 0


def test_they_are_by_setting():
    with Webhook((200, b"yes", 0)) as hook:
        answer = post(hook.url, allow_private=True)
        headers, body = hook.next()
    assert (answer.status, answer.body) == (200, b"yes")
    assert (headers["X-A"], body) == ("b", b"content")


def test_an_answer_has_its_time():
    with Webhook((200, b"", 3.0)) as hook:
        started = time.monotonic()
        with pytest.raises(ConnectorError, match=r"did not answer within 0\.3 s"):
            post(hook.url, allow_private=True, seconds=0.3)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://nowhere.invalid/", "https://127.0.0.1:1/"]
)
def test_nobody_there_is_tried_again(url):
    with pytest.raises(ConnectorError) as raised:
        post(url, allow_private=True)
    assert not raised.value.final


def test_a_certificate_is_checked():
    """A TLS server with a certificate that nobody has signed."""
    import ssl
    import tempfile
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from pathlib import Path

    from sendback.crypto.certificates import make_certificate

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tls.pem"
        make_certificate(file, "localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(ConnectorError, match=r"(?i)certificate"):
                post(f"https://localhost:{server.server_address[1]}/", allow_private=True)
        finally:
            server.shutdown()
            server.server_close()


@pytest.mark.parametrize(
    "url",
    [
        "http://u:hunter2@127.0.0.1:9/x?token=hunter2",
        "http://u:hunter2@nowhere.invalid/",
        "http://u:hunter2@[::1",
        "http://u:hunter2@\u2100/",
        "ftp://u:hunter2@127.0.0.1/",
        "http://u:hunter2@127.0.0.1:port/",
        "//u:hunter2@127.0.0.1/",
        "http://u:hunter2@" + "x" * 100 + ".example/",
    ],
)
def test_an_error_names_no_password(url):
    with pytest.raises(ConnectorError) as raised:
        post(url, allow_private=True)
    assert "hunter2" not in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("url", ["", "x", "http://", "http://[", "http://\x00/", "http://é/"])
def test_what_is_no_url_is_an_error_for_good_or_for_now(url):
    with pytest.raises(ConnectorError):
        post(url, allow_private=True)


class Hostile:
    """A server that answers with octets of the test's own, as long as somebody reads."""

    def __init__(self, *pieces, repeat=b""):
        self.pieces, self.repeat = pieces, repeat
        self.written = 0

    async def serve(self, reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in self.pieces:
                writer.write(piece)
            while self.repeat:
                writer.write(self.repeat)
                self.written += len(self.repeat)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        writer.close()

    def ask(self, max_response=1024 * 1024, seconds=20.0):
        async def main():
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            connector = Connector(allow_private=True, max_response=max_response)
            try:
                return await connector.get(f"http://127.0.0.1:{port}/", seconds)
            finally:
                await connector.close()
                server.close()

        return asyncio.run(main())


@pytest.mark.parametrize(
    "hostile",
    [
        Hostile(b"HTTP/1.1 200 OK\r\n", repeat=b"X-A: " + b"b" * 60_000 + b"\r\n"),
        Hostile(b"HTTP/1.1 200 OK\r\n", repeat=b"X: y\r\n" * 10_000),
        Hostile(b"HTTP/1.1 200 OK\r\nX: ", repeat=b"y" * 65_536),
        Hostile(repeat=b"y" * 65_536),
        Hostile(b"HTTP/1.1 200 \x1b[2J\r\n\x9b: x\r\n\r\n"),
        Hostile(b"HTTP/1.1 200 OK\r\n\r\n", repeat=b"z" * 65_536),
        Hostile(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            repeat=b"10000\r\n" + b"z" * 65_536 + b"\r\n",
        ),
    ],
    ids=["fields", "many fields", "a field", "no HTTP", "controls", "a body", "chunks"],
)
def test_an_answer_without_an_end_is_bounded(hostile):
    """What was read is little more than what may be: the rest is not waited for."""
    with pytest.raises(ConnectorError) as raised:
        hostile.ask()
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) <= 500
    assert hostile.written < 16 * 1024 * 1024


def test_a_content_type_is_cut():
    kind = b"text/plain;" + b"x" * 50_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Type: " + kind + b"\r\n\r\n"
    answer = Hostile(head, b"y").ask()
    assert (answer.body, len(answer.content_type)) == (b"y", 200)
