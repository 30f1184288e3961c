"""The console at a million messages: `python -m bench.console [MESSAGES]`, by default 1,000,000.

Each page is asked for 30 times, on SQLite and on PostgreSQL. Then: the time from the 250 to the row
in the live list, and what an open console costs receiving (in turns).
"""

import http.client
import re
import sys
import threading
import time
from contextlib import closing
from statistics import median, quantiles

from tests.partners.clients import send_mail

from bench.common import smtp_source
from bench.growth import fill
from bench.results import record
from bench.servers import Measured, Servers, scaled

PAGES = {
    "mail": "/console/mail",
    "search, found": "/console/mail?q=from:ann",
    "search, rare": "/console/mail?q=subject:nothing-has-this",
    "search, bounced": "/console/mail?q=state:bounced",
    "bounces": "/console/bounces",
    "bounces, failed": "/console/bounces?state=failed",
    "bounces, by reply": "/console/bounces?reply=nothing-has-this",
    "domains": "/console/domains",
    "rules": "/console/rules",
    "identities": "/console/identities",
    "overview, hour": "/console/overview",
    "overview, week": "/console/overview?period=week",
    "accounts": "/console/accounts",
    "faults": "/console/faults",
    "settings": "/console/settings",
    "changes": "/console/audit",
}
TIMES = 30
MAILS = 3000
ROUNDS = 5


def main(size: int = 1_000_000) -> None:
    print(f"The console, {size:,} messages and bounces (ms)")
    figures = {}
    with Servers() as servers:
        for server in (servers.sqlite(), servers.postgresql()):
            fill(server, 0, size)
            figures[server.name] = _measure(server)
    record("console", figures)


def _measure(server: Measured) -> dict[str, float]:
    print(f"  {server.name}")
    port = server.sendback.http_port if server.sendback else 0
    first = re.search(r"row-(\w{40})", _get(port, "/console/mail"))
    paths = dict(PAGES)
    if first is not None:
        paths |= {
            "message": f"/console/mail/{first[1]}",
            "form of a bounce": f"/console/mail/{first[1]}/bounce",
            "mail, deep": f"/console/mail?before=0{first[1][1:]}",
        }
    found = {}
    for name, path in paths.items():
        times = [_milliseconds(port, path) for _ in range(TIMES)]
        p99 = quantiles(times, n=100)[98]
        found[name] = p99
        print(f"    {name:22} p50 {median(times):6.1f}   p99 {p99:6.1f}   max {max(times):6.1f}")
    found["live row"] = median(_live(port, server) for _ in range(10))
    print(f"    from the 250 to the row in the live list: {found['live row']:.0f}")
    found["receiving"] = _receiving(port, server)
    print(f"    receiving with an open console / without: {found['receiving']:.3f}")
    return found


def _get(port: int, path: str) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise RuntimeError(f"{path}: {response.status}")
        return response.read().decode()


def _milliseconds(port: int, path: str) -> float:
    start = time.perf_counter()
    _get(port, path)
    return (time.perf_counter() - start) * 1000


def _live(port: int, server: Measured) -> float:
    """Milliseconds from the reply to a mail to its row."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/console/mail/live")
        response = connection.getresponse()
        response.readline()
        message_id = send_mail(server.port, recipients=(server.recipient,))
        start = time.perf_counter()
        while f"row-{message_id}".encode() not in response.readline():
            pass
        return (time.perf_counter() - start) * 1000


def _receiving(port: int, server: Measured) -> float:
    """The ratio of rates of receiving, with a browser that follows the list and without."""
    ratios = []
    for _ in range(ROUNDS):
        alone = smtp_source(server.port, scaled(MAILS), to=server.recipient)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/console/mail/live")
            response = connection.getresponse()
            reader = threading.Thread(target=_read, args=(response,), daemon=True)
            reader.start()
            ratios.append(smtp_source(server.port, scaled(MAILS), to=server.recipient) / alone)
            if connection.sock is not None:
                connection.sock.shutdown(2)
            reader.join()
    return median(ratios)


def _read(response: http.client.HTTPResponse) -> None:
    try:
        while response.read1():
            pass
    except (OSError, ValueError, http.client.HTTPException):
        return


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
