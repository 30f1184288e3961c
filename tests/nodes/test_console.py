"""The console of several nodes and workers: one login, one audit, complete sums."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.nodes.test_nodes import first_command, until
from tests.partners.clients import send_mail, ses
from tests.partners.console import ConsoleClient

pytestmark = pytest.mark.timeout(400)


def received(client: ConsoleClient) -> int:
    page = client.get("/console/overview")
    found = re.search(r'Received</a></dt><dd class="big">([\d,]+)', page.html)
    assert found is not None, page.text
    return int(found[1].replace(",", ""))


def test_the_sums_of_two_nodes_with_two_workers_are_complete(nodes):
    first, second = nodes("--workers", "2"), nodes("--workers", "2")
    ses(first.endpoint).verify_domain_identity(Domain="example.com")
    until(lambda: sends(first) and sends(second))
    clients = [ConsoleClient(node.endpoint) for node in (first, second)]
    until(lambda: received(clients[0]) == received(clients[1]) >= 2)
    before = received(clients[0])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: send_mail((first, second)[n % 2].smtp_port), range(60)))
    for client in clients:
        until(lambda c=client: received(c) == before + 60)
    rows = first.query("SELECT width, SUM(number) FROM counters WHERE kind = 'received' GROUP BY 1")
    assert {int(number) for _, number in rows} == {before + 60}


def test_what_a_node_has_counted_when_it_stops_is_kept(nodes):
    first, second = nodes(), nodes()
    ses(first.endpoint).verify_domain_identity(Domain="example.com")
    until(lambda: sends(second))
    for _ in range(5):
        send_mail(second.smtp_port)
    second.stop()
    client = ConsoleClient(first.endpoint)
    assert received(client) == 6


def test_a_session_is_one_of_all_nodes(nodes):
    flags = {"SENDBACK_DEVELOPMENT_KEY": "false"}
    first, second = nodes("--workers", "2", **flags), nodes(**flags)
    made = json.loads(first_command(first, "keys", "create", "--account", "000000000000", "--json"))
    client = ConsoleClient(first.endpoint)
    client.get("/console/login")
    fields = {"access_key": made["access_key_id"], "secret": made["secret_access_key"]}
    assert client.post("/console/login", {"by": "key", **fields}).path == "/console/mail"
    other = ConsoleClient(second.endpoint)
    other.cookies = client.cookies
    assert other.get("/console/mail").path == "/console/mail"
    other.get("/console/domains")
    other.post("/console/domains", {"domain": "example.net", "do": "pause"})
    assert "example.net is paused" in client.get("/console/audit").text
    other.post("/console/logout")
    for _ in range(4):  # each worker of the first node
        assert client.get("/console/mail").path.startswith("/console/login")


def test_attempts_are_counted_for_all_nodes_together(nodes):
    flags = {"SENDBACK_DEVELOPMENT_KEY": "false"}
    clients = [ConsoleClient(nodes("--workers", "2", **flags).endpoint) for _ in range(2)]
    statuses = []
    for number in range(12):
        client = clients[number % 2]
        client.get("/console/login")
        fields = {"by": "password", "user": "root", "password": "wrong"}
        statuses.append(client.post("/console/login", fields).status)
    assert statuses == [400] * 10 + [429] * 2


def sends(node) -> bool:
    """Whether the node accepts a mail."""
    try:
        send_mail(node.smtp_port)
    except AssertionError:
        return False
    return True
