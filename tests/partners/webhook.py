"""An HTTP server that keeps what is posted to it, and answers as it is told."""

import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Webhook:
    """`answers` are (status, body, seconds to wait), one after the other, then 200 at once."""

    def __init__(self, *answers: tuple[int, bytes, float]) -> None:
        self.posts: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self.count = 0
        outer, left = self, list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    return  # the client was killed in the middle
                outer.count += 1
                status, answer, wait = left.pop(0) if left else (200, b"", 0.0)
                outer.posts.put((dict(self.headers), body))
                time.sleep(wait)
                try:
                    self.send_response(status)
                    if status in {301, 302, 307}:
                        self.send_header("Location", outer.url)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    pass  # the client has gone

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def next(self, seconds: float = 10.0) -> tuple[dict[str, str], bytes]:
        return self.posts.get(timeout=seconds)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
