"""What DNS answers for the records of an identity, in the console."""

import pytest

from tests.partners.console import ConsoleClient
from tests.partners.dns_server import DnsServer

PAGE = "/console/identities/example.com"
RECORDS = f"{PAGE}/records"


@pytest.fixture
def dns():
    with DnsServer("") as server:
        yield server


@pytest.fixture
def served(running, dns):
    """A server with example.com, which looks into the DNS of the test."""
    server = running(dns=dns.address)
    server.ses.verify_domain_identity(Domain="example.com")
    return server


def wanted(server, page):
    """The token that is to be published."""
    found = server.ses.get_identity_verification_attributes(Identities=["example.com"])
    return found["VerificationAttributes"]["example.com"]["VerificationToken"]


def test_the_answers_for_each_record(served, dns):
    console = ConsoleClient(served.endpoint)
    served.ses.verify_domain_dkim(Domain="example.com")
    served.ses.set_identity_mail_from_domain(Identity="example.com", MailFromDomain="b.example.com")
    page = console.get(PAGE)
    assert "not looked up" in page.text
    assert '_amazonses.example.com. 300 IN TXT "' in page.text
    assert "missing" in console.get(RECORDS).text
    dns.put("_amazonses.example.com", "TXT", '"other"', f'"{wanted(served, page)}"')
    dns.put("b.example.com", "MX", "10 mx.elsewhere.example.")
    dns.put("b.example.com", "TXT", '"v=spf1 -all"', '"beside it"')
    looked = console.get(RECORDS)
    assert looked.text.count("found") == 1
    assert "different mx.elsewhere.example" in looked.text
    assert "different v=spf1 -all" in looked.text
    assert "beside it" not in looked.text


def test_the_text_of_the_zone_is_what_dns_needs(served, dns):
    console = ConsoleClient(served.endpoint)
    served.ses.verify_domain_dkim(Domain="example.com")
    served.ses.set_identity_mail_from_domain(Identity="example.com", MailFromDomain="b.example.com")
    html = console.get(PAGE).html
    zone = html.partition('<pre id="zone"')[2].partition(">")[2].partition("</pre>")[0]
    lines = zone.replace("&#34;", '"').splitlines()
    assert len(lines) == 6
    for line in lines:
        name, _, _, kind, value = line.split(None, 4)
        dns.put(name, kind, value)
    looked = console.get(RECORDS).text
    assert "missing" not in looked
    assert "different" not in looked
    assert looked.count("found") == 6


def test_a_part_for_htmx(served):
    console = ConsoleClient(served.endpoint)
    part = console.get(RECORDS, HX_Request="true")
    assert "<html" not in part.html
    assert "missing" in part.text


def test_text_from_dns_is_text(served, dns):
    dns.put("_amazonses.example.com", "TXT", '"<script>x</script>\\226\\128\\174"')
    page = ConsoleClient(served.endpoint).get(RECORDS)
    assert "<script>x" not in page.html
    assert "\u202e" not in page.html
    assert "different" in page.text


def test_dns_that_fails_or_is_off(served, running):
    console = ConsoleClient(served.endpoint)
    served.ses.verify_domain_identity(Domain="servfail.example.com")
    assert "no answer" in console.get("/console/identities/servfail.example.com/records").text
    off = running(dns="off")
    off.ses.verify_domain_identity(Domain="example.com")
    assert "DNS is off" in ConsoleClient(off.endpoint).get(RECORDS).text


def test_records_of_others(served):
    console = ConsoleClient(served.endpoint)
    assert console.get("/console/identities/nobody.example/records").status == 404
