"""kill -9 while a queue for many domains drains by MX: nothing is lost, little comes twice."""

import time
from collections import Counter

import pytest

from tests.partners.dns_server import DnsServer
from tests.partners.listener import Listener
from tests.partners.queue import fill
from tests.partners.sendback import Sendback

DOMAINS, MESSAGES = 20, 300
ZONE = "mx.example. 300 IN A 127.0.0.2\n" + "".join(
    f"d{number}.example. 300 IN MX 0 mx.example.\n" for number in range(DOMAINS)
)


@pytest.mark.parametrize("kill_after", [10, 120])
def test_all_arrive(tmp_path, kill_after):
    recipients = [f"ann{number}@d{number % DOMAINS}.example" for number in range(MESSAGES)]
    with DnsServer(ZONE) as dns, Listener(host="127.0.0.2") as listener:
        environment = {
            "SENDBACK_DNS": dns.address,
            "SENDBACK_MX_PORT": str(listener.port),
            "SENDBACK_PRIVATE_TARGETS": "true",
            "SENDBACK_LEASE": "2s",
            "SENDBACK_LOG_LEVEL": "warning",
        }
        server = Sendback(tmp_path, ("--outbound", "mx"), environment)
        fill(server.data_dir, recipients)
        arrived: Counter[str] = Counter()
        server.start()
        while arrived.total() < kill_after:
            arrived.update(listener.next().recipients)
        server.kill()
        server.start()
        deadline = time.monotonic() + 60
        while len(arrived) < MESSAGES:
            assert time.monotonic() < deadline, f"{len(arrived)} of {MESSAGES}"
            arrived.update(listener.next(30).recipients)
        server.stop()
        while not listener.messages.empty():
            arrived.update(listener.next().recipients)
    assert set(arrived) == set(recipients)
    # What was on the wire, or answered and not yet written down, may come twice: RFC 5321 §6.1.
    assert arrived.total() - MESSAGES < MESSAGES / 2
