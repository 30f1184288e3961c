"""Signed SendBounce calls a second by wrk on 20 connections, with the rate limit off.

wrk repeats requests that botocore has signed beforehand, without an invocation ID, so that each
is a bounce of its own.
"""

import re
import subprocess
import tempfile
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.partners.clients import send_mail

from bench.common import bounce_form, row, sendback

SECONDS = 8
CONNECTIONS = 20


def main() -> None:
    print(f"SendBounce, wrk, {CONNECTIONS} connections, capture mode")
    calls: list[float] = []
    latencies: list[float] = []
    with sendback() as server, tempfile.TemporaryDirectory() as folder:
        ids = [send_mail(server.smtp_port) for _ in range(50)]
        script = Path(folder) / "requests.lua"
        script.write_text(_script([_signed(server.endpoint, message_id) for message_id in ids]))
        for _ in range(3):
            output = _wrk(server.endpoint, script)
            if "Non-2xx" in output:
                raise SystemExit(output)
            calls.append(float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]))  # type: ignore[index]
            latencies.append(_milliseconds(re.search(r"99%\s+([\d.]+)(\w+)", output)))
    row("calls", calls, "calls/s")
    row("99th percentile", latencies, "ms")


def _signed(endpoint: str, message_id: str) -> tuple[str, dict[str, str]]:
    body = bounce_form(message_id)
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    request = AWSRequest("POST", endpoint + "/", headers=headers, data=body)
    SigV4Auth(Credentials("test", "test"), "ses", "us-east-1").add_auth(request)
    return body, dict(request.headers)


def _script(requests: list[tuple[str, dict[str, str]]]) -> str:
    lines = ["local requests = {}"]
    for body, headers in requests:
        table = ", ".join(f'["{name}"]="{value}"' for name, value in headers.items())
        lines.append(f'requests[#requests + 1] = wrk.format("POST", "/", {{{table}}}, "{body}")')
    # wrk.format needs wrk.host and the like, which exist only once a thread runs.
    build = "\n  ".join(lines[1:])
    return (
        "local requests, turn = {}, 0\n"
        f"function init(args)\n  {build}\nend\n"
        "function request()\n  turn = turn % #requests + 1\n  return requests[turn]\nend\n"
    )


def _wrk(endpoint: str, script: Path) -> str:
    command = [
        "wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{SECONDS}s", "--latency",
        "-s", str(script), endpoint + "/",
    ]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _milliseconds(match: "re.Match[str] | None") -> float:
    if match is None:
        raise SystemExit("wrk printed no percentile")
    return float(match[1]) * {"us": 0.001, "ms": 1, "s": 1000}[match[2]]


if __name__ == "__main__":
    main()
