"""The guarded way out: private addresses, time, redirects."""

import asyncio
import time

import pytest

from sendback.connector import Connector, ConnectorError, ForbiddenAddressError
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

    from sendback.service.certificates import make_certificate

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tls.pem"
        make_certificate(file, "localhost", rsa=False)
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
