"""An HTTPS server on loopback that answers every GET in one way."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class HttpsServer:
    """`status`, `headers` and `body` may be changed while it runs; it remembers what was asked."""

    def __init__(self, tls: ssl.SSLContext, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.status = 200
        self.headers = {"Content-Type": "text/plain"}
        self.body = b""
        self.asked: list[tuple[str, str]] = []  # Host, path
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.headers["Host"], self.path))
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """A client that does not like the certificate is no error."""

            def get_request(self) -> Any:
                connection, address = super().get_request()
                return tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                ), address

        self._server = Server((host, port), Handler)
        self.port = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
