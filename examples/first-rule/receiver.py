"""Print the mail in each notification that is posted to http://127.0.0.1:8000/hook."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        posted = json.loads(body)  # as SNS posts: "Message" is the notification of SES
        notification = json.loads(posted["Message"])
        print("Subject:", notification["mail"]["commonHeaders"].get("subject"))
        print(notification["content"], flush=True)

    def log_message(self, *arguments):
        """Print nothing about the request itself."""


HTTPServer(("127.0.0.1", 8000), Hook).serve_forever()
