"""Signed SendBounce calls a second by wrk on 20 connections, with the rate limit off.

wrk repeats requests that botocore has signed beforehand, without an invocation ID, so that each
is a bounce of its own.
"""

import re
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.partners.clients import send_mail

from bench.common import bounce_form
from bench.results import record
from bench.servers import Measured, Servers

SECONDS = 8
CONNECTIONS = 20
ROUNDS = 3


def main() -> None:
    print(f"SendBounce, wrk, {CONNECTIONS} connections, capture mode")
    with Servers() as servers, tempfile.TemporaryDirectory() as folder:
        measured = [servers.sqlite(), servers.postgresql()]
        scripts = [
            _script_for(server, Path(folder) / f"{n}.lua") for n, server in enumerate(measured)
        ]
        latencies: dict[str, list[float]] = {server.name: [] for server in measured}
        for _ in range(ROUNDS):
            for server, script in zip(measured, scripts, strict=True):
                latencies[server.name].append(_measure(server, script))
    figures = {
        server.name: [
            median(server.rates["calls"]),
            median(server.costs["calls"]),
            median(latencies[server.name]),
        ]
        for server in measured
    }
    for name, (rate, cost, latency) in figures.items():
        print(
            f"    {name:34} {rate:7,.0f} calls/s  {cost:7,.0f} us CPU a call  p99 {latency:4.0f} ms"
        )
    record("send_bounce", figures)


def _script_for(server: Measured, script: Path) -> Path:
    endpoint = _endpoint(server)
    ids = [send_mail(server.port) for _ in range(50)]
    script.write_text(_script([_signed(endpoint, message_id) for message_id in ids]))
    return script


def _endpoint(server: Measured) -> str:
    return server.sendback.endpoint if server.sendback else ""


def _measure(server: Measured, script: Path) -> float:
    """Record one run; return its 99th percentile in ms."""
    before, started = server.cpu(), time.perf_counter()
    output = _wrk(_endpoint(server), script)
    seconds, cpu = time.perf_counter() - started, server.cpu() - before
    if "Non-2xx" in output:
        raise SystemExit(output)
    calls = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    server.rates.setdefault("calls", []).append(calls / seconds)
    server.costs.setdefault("calls", []).append(cpu / calls * 1e6)
    return _milliseconds(re.search(r"99%\s+([\d.]+)(\w+)", output))


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
