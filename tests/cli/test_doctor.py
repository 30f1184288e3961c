"""`sendback doctor` with a DNS server and mail servers that the test starts."""

import json

import pytest
from aiosmtpd.smtp import AuthResult

from tests.partners.authority import Authority
from tests.partners.awkward import Awkward
from tests.partners.dns_server import DnsServer
from tests.partners.listener import Listener
from tests.partners.sendback import run_cli

pytestmark = pytest.mark.sqlite("it uses no database")

HOST = "mx.here.example"
ZONE = f"""\
{HOST}. 300 IN A 192.0.2.1
1.2.0.192.in-addr.arpa. 300 IN PTR {HOST}.
2.2.0.192.in-addr.arpa. 300 IN PTR other.example.
{HOST}. 300 IN TXT "v=spf1 a -all"
here.example. 300 IN MX 10 {HOST}.
_dmarc.here.example. 300 IN TXT "v=DMARC1; p=reject"
there.example. 300 IN MX 10 mx.there.example.
mx.there.example. 300 IN A 127.0.0.2
. 300 IN SOA a. b. 1 2 3 4 5
"""


@pytest.fixture
def dns():
    with DnsServer(ZONE, secure=("",)) as server:
        yield server


@pytest.fixture
def doctor(tmp_path, dns):
    """Run `doctor`; return (verdict, found, advice) by check, and the exit code."""

    def run(*arguments, **settings):
        environment = {
            "SENDBACK_DATA_DIR": str(tmp_path / "data"),
            "SENDBACK_DNS": dns.address,
            "SENDBACK_HOSTNAME": HOST,
            "SENDBACK_VERIFICATION": "at_once",
            **{f"SENDBACK_{name.upper()}": value for name, value in settings.items()},
        }
        run.environment = environment
        done = run_cli("doctor", *arguments, "--json", check=False, environment=environment)
        found = {
            f["check"]: (f["verdict"], f["found"], f["advice"]) for f in json.loads(done.stdout)
        }
        return found, done.returncode

    return run


def test_all_is_well(doctor, dns, tmp_path):
    authority = Authority(tmp_path)
    own, there = authority.issue(HOST, days=60), authority.issue("mx.there.example")
    with Awkward(host="127.0.0.2", tls=there.context()) as peer:
        settings = {
            "outbound": "mx",
            "mx_port": str(peer.port),
            "private_targets": "true",
            "tls_ca_file": str(authority.file),
            "tls_certificate": str(own.file),
            "tls_key": str(own.file),
        }
        ask = ("--address", "192.0.2.1", "--probe", "there.example")
        doctor(*ask, **settings)
        run_cli("db", "create", environment=doctor.environment)
        run_cli("identities", "verify", "here.example", "--dkim", environment=doctor.environment)
        records = run_cli(
            "identities", "records", "here.example", "--json", environment=doctor.environment
        )
        for record in json.loads(records.stdout):
            text = record["value"]
            pieces = [text[n : n + 250] for n in range(0, len(text), 250)]
            dns.put(record["name"], "TXT", " ".join(f'"{piece}"' for piece in pieces))
        found, code = doctor(*ask, **settings)
    assert {verdict for verdict, _, _ in found.values()} == {"good"}, found
    assert code == 0
    assert found["PTR of 192.0.2.1"][1] == HOST
    assert found["SPF of HELO from 192.0.2.1"][1] == "pass"
    assert found["DKIM of here.example"][1] == "rsa key is published"
    assert found["DMARC of here.example"][1] == "v=DMARC1; p=reject; HELO aligns with it"
    assert found["port 25 out"][1].startswith("mx.there.example[127.0.0.2]:")
    assert "TLSv1.3, certificate verified" in found["TLS out"][1]


def test_what_is_wrong_comes_with_advice(doctor):
    found, code = doctor("--address", "192.0.2.2", hostname="mx.nowhere.example")
    assert code == 1
    assert found["host name"][0] == "problem"
    verdict, text, advice = found["PTR of 192.0.2.2"]
    assert (verdict, text) == ("problem", "it is other.example, not mx.nowhere.example")
    assert advice.endswith("publish: 2.2.0.192.in-addr.arpa. PTR mx.nowhere.example.")
    text, advice = found["SPF of HELO from 192.0.2.2"][1:]
    assert (text, advice) == ("none", 'publish: mx.nowhere.example. TXT "v=spf1 a -all"')
    assert found["port 25 out"][0] == "skipped"


def test_a_port_that_is_blocked(doctor):
    settings = {"outbound": "mx", "mx_port": "1", "private_targets": "true"}
    found, code = doctor("--probe", "there.example", "--address", "192.0.2.1", **settings)
    verdict, text, advice = found["port 25 out"]
    assert (verdict, code) == ("problem", 1)
    assert text == "mx.there.example[127.0.0.2]:1: connect: Connection refused"
    assert "many networks block port 25" in advice


def test_relays_are_tried_with_their_passwords(doctor):
    with Listener(
        authenticator=lambda *a: AuthResult(success=a[-1].password == b"p", handled=False),
        auth_required=True,
        auth_require_tls=False,
    ) as relay:
        good, bad = (f"smtp://u:{word}@127.0.0.1:{relay.port}" for word in "px")
        check = f"relay 127.0.0.1:{relay.port}"
        found, _ = doctor("--address", "192.0.2.1", outbound=good)
        assert found[check][:2] == ("good", "without TLS, the password is accepted")
        found, code = doctor("--address", "192.0.2.1", outbound=bad)
    assert (found[check][0], code) == ("problem", 1)
    assert "535" in found[check][1]


def test_dns_that_does_not_answer(doctor):
    found, code = doctor("--address", "192.0.2.1", hostname="mx.servfail.example")
    assert code == 1
    assert found["host name"][1].startswith("the DNS lookup failed: mx.servfail.example A")


def test_the_terminal(tmp_path, dns):
    environment = {
        "SENDBACK_DATA_DIR": str(tmp_path / "data"),
        "SENDBACK_DNS": dns.address,
        "SENDBACK_HOSTNAME": HOST,
    }
    done = run_cli("doctor", "--address", "192.0.2.1", environment=environment)
    assert f"ok  host name                   {HOST} is 192.0.2.1\n" in done.stdout
    odd = run_cli("doctor", "--address", "here", check=False, environment=environment)
    assert odd.returncode == 2


def test_a_certificate_that_cannot_be_read(doctor, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tls.pem").write_bytes(b"\0no certificate\x1b")
    found, code = doctor("--address", "192.0.2.1")
    verdict, text, _ = found["own certificate"]
    assert (verdict, code) == ("problem", 1)
    assert "tls.pem" in text


@pytest.mark.parametrize(
    ("records", "verdict"),
    [
        (['"v=DMARC1; p=none"'], "good"),
        (['"v = DMARC1 ; p = reject"'], "good"),
        (['"v=DMARC1x; p=none"'], "advice"),
        (['"v=DMARC1"'], "advice"),
        (['"v=DMARC1; p=none"', '"v=DMARC1; p=reject"'], "problem"),
    ],
)
def test_what_is_a_dmarc_record(doctor, dns, records, verdict):
    dns.put("_dmarc.here.example", "TXT", *records)
    doctor("--address", "192.0.2.1")
    run_cli("db", "create", environment=doctor.environment)
    run_cli("identities", "verify", "here.example", environment=doctor.environment)
    found, _ = doctor("--address", "192.0.2.1")
    assert found["DMARC of here.example"][0] == verdict, found
