"""Delivery by MX to real servers, through real DNS.

Postfix, Exim and OpenSMTPD, each the MX of a domain, offer TLS and pass what they take on to a
listener. NSD holds their MX, TLSA and MTA-STS records in a signed zone and in one that is not;
Unbound validates. dkimpy verifies what arrived, with the keys that it finds in that DNS.
"""

import os
import shutil
import tempfile
from pathlib import Path

import dkim
import dns.resolver
import pytest

from sendback.service.identities.dns_records import wanted_records
from tests.conftest import need
from tests.partners import dnssec, exim, opensmtpd, postfix
from tests.partners.authority import Authority
from tests.partners.dnssec import Dnssec
from tests.partners.exim import Exim
from tests.partners.https_server import HttpsServer
from tests.partners.listener import Listener
from tests.partners.opensmtpd import OpenSmtpd
from tests.partners.postfix import Postfix, free_port
from tests.partners.server import Server
from tests.partners.waiting import wait_for

ACCOUNT = "000000000000"
# example is signed, plain is not.
SERVERS = {"postfix": "127.0.0.2", "exim": "127.0.0.3", "opensmtpd": "127.0.0.5"}
POLICIES = "127.0.0.9"
POLICY = "version: STSv1\nmode: enforce\nmx: mx.exim.plain\nmax_age: 86400\n"


class World:
    """All of it, running; `bounce` sends a bounce to a sender's domain and answers its end."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.authority = Authority(folder)
        self.certificates = {
            name: self.authority.issue(f"mx.{name}.example", f"mx.{name}.plain") for name in SERVERS
        }
        self.listener = Listener()
        self.dns = None
        self.server = None

    def zones(self):
        """(signed, unsigned)"""
        signed = unsigned = ""
        for name, address in SERVERS.items():
            records = f"{name} 300 IN MX 10 mx.{name}\nmx.{name} 300 IN A {address}\n"
            tlsa = self.certificates[name].tlsa(2 if name == "exim" else 3, 1, 1)
            signed += records + f"_{self.port}._tcp.mx.{name} 300 IN TLSA {tlsa}\n"
            unsigned += records
        # A server with another certificate than its records say.
        other = self.authority.issue("mx.wrong.example").tlsa(3, 1, 1)
        signed += (
            f"wrong 300 IN MX 10 mx.wrong\nmx.wrong 300 IN A {SERVERS['postfix']}\n"
            f"_{self.port}._tcp.mx.wrong 300 IN TLSA {other}\n"
        )
        # MTA-STS: one whose server is the one it names; one whose certificate is another's.
        unsigned += f"wrong 300 IN MX 10 mx.wrong\nmx.wrong 300 IN A {SERVERS['postfix']}\n"
        for name in ("exim", "wrong"):
            unsigned += (
                f'_mta-sts.{name} 300 IN TXT "v=STSv1; id=1"\nmta-sts.{name} 300 IN A {POLICIES}\n'
            )
        return signed, unsigned

    def bounce(self, domain):
        message_id = self.server.send_bounce(
            sender=f"ann@{domain}",
            recipient="bob@sendback.example",
            bounce_sender="Mail Delivery Subsystem <mailer-daemon@sendback.example>",
        )
        wait_for(lambda: self.server.bounce(message_id).attempts, 20)
        return self.server.bounce(message_id), self.server.attempts(message_id)

    def dkim(self, content):
        """What dkimpy says of each signature: algorithm and result."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = [dns.nameserver.Do53Nameserver("127.0.0.1", self.dns.port)]

        def lookup(name, timeout=5):
            answer = resolver.resolve(name.decode(), "TXT")
            return b"".join(answer[0].strings)

        verifier = dkim.DKIM(content)
        found = {}
        for number in range(content.count(b"DKIM-Signature:")):
            good = verifier.verify(number, dnsfunc=lookup)
            found[verifier.signature_fields[b"a"].decode()] = "pass" if good else "fail"
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    need("postfix", available=postfix.is_usable())
    need("exim", available=exim.is_usable())
    need("opensmtpd", available=opensmtpd.is_usable())
    need("nsd and unbound", available=dnssec.is_usable())
    need("port 443", available=os.geteuid() == 0)
    # The servers run as users of their own, who must be able to read their certificates.
    folder = Path(tempfile.mkdtemp(prefix="sendback-world-"))
    folder.chmod(0o755)
    made = World(folder)
    dns_port = free_port()
    flags = {
        "send_bounce_rate": "0",
        "outbound": "mx",
        "dns": f"127.0.0.1:{dns_port}",
        "mx_port": str(made.port),
        "private_targets": "true",
        "tls_ca_file": str(made.authority.file),
        "dkim_ed25519": "true",
        "hostname": "mx.sendback.example",
    }
    made.server = Server(data_dir=tmp_path_factory.mktemp("data"), **flags).start()
    signed, unsigned = made.zones()
    signed += _own_records(made.server)
    certificate = made.authority.issue("mta-sts.exim.plain", "mta-sts.wrong.plain")
    names = made.certificates
    relay = made.listener.port
    tls = (
        f"smtpd_tls_security_level = may\nsmtpd_tls_loglevel = 1\n"
        f"smtpd_tls_cert_file = {names['postfix'].file}\n"
        f"smtpd_tls_key_file = {names['postfix'].file}"
    )
    inline = f"smtp:[127.0.0.1]:{relay}"
    places = {name: {"host": host, "port": made.port} for name, host in SERVERS.items()}
    try:
        with (
            made.listener,
            Dnssec(("example", signed), ("plain", unsigned), port=dns_port) as made.dns,
            Postfix(tls, domain="postfix.example", onward=inline, **places["postfix"]) as one,
            Exim(relay, tls=names["exim"].file, **places["exim"]) as two,
            OpenSmtpd(
                relay,
                name="mx.opensmtpd.example",
                tls=names["opensmtpd"].file,
                **places["opensmtpd"],
            ) as three,
            HttpsServer(certificate.context(), host=POLICIES, port=443) as policies,
        ):
            policies.body = POLICY.encode()
            made.partners = {"postfix": one, "exim": two, "opensmtpd": three}
            made.policies = policies
            yield made
    finally:
        made.server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _own_records(server):
    """What `sendback identities records` says is to be published, relative to the zone."""
    client = server.ses
    client.verify_domain_identity(Domain="sendback.example")
    client.verify_domain_dkim(Domain="sendback.example")
    client.set_identity_dkim_enabled(Identity="sendback.example", DkimEnabled=True)
    work = wanted_records(server.app.store, ACCOUNT, "sendback.example", "mx.sendback.example")
    lines = ""
    for record in server.run(work):
        if record.kind == "TXT":
            text = " ".join(
                f'"{record.value[start : start + 250]}"'
                for start in range(0, len(record.value), 250)
            )
            lines += f"{record.name.removesuffix('.example')} 300 IN TXT {text}\n"
    return lines


LOGS = {
    "postfix": ("TLS connection established from", "from=<>"),
    "exim": ("<= <>", "X=TLS1.3"),
    "opensmtpd": ("tls ciphers=TLSv1.3", "from=<>"),
}


@pytest.mark.parametrize("name", SERVERS)
def test_by_dane(world, name):
    message, (attempt,) = world.bounce(f"{name}.example")
    assert message.state == "delivered", message.last_reply
    assert attempt.peer == f"mx.{name}.example[{SERVERS[name]}]:{world.port}"
    assert (attempt.tls, attempt.tls_policy) == ("TLSv1.3", "dane")
    for text in LOGS[name]:
        world.partners[name].wait_for_log(text)
    arrived = world.listener.next(30)
    assert (arrived.sender, arrived.recipients) == ("", [f"ann@{name}.example"])
    assert world.dkim(arrived.content) == {"rsa-sha256": "pass", "ed25519-sha256": "pass"}


def test_dane_refuses_a_wrong_certificate(world):
    message, (attempt,) = world.bounce("wrong.example")
    assert message.state == "queued"
    assert attempt.tls_policy == "dane"
    assert "no TLSA record matches the certificate" in attempt.reply


def test_mta_sts(world):
    message, (attempt,) = world.bounce("exim.plain")
    assert message.state == "delivered", message.last_reply
    assert (attempt.tls, attempt.tls_policy) == ("TLSv1.3", "mta-sts")
    assert ("mta-sts.exim.plain", "/.well-known/mta-sts.txt") in world.policies.asked
    assert world.listener.next(30).recipients == ["ann@exim.plain"]


def test_mta_sts_refuses_a_wrong_certificate(world):
    """The policy names the server, whose certificate is another's."""
    world.policies.body = POLICY.replace("mx.exim.plain", "mx.wrong.plain").encode()
    message, (attempt,) = world.bounce("wrong.plain")
    assert message.state == "queued"
    assert attempt.tls_policy == "mta-sts"
    assert "the certificate is not valid: Hostname mismatch" in attempt.reply


def test_without_either_tls_is_opportunistic(world):
    message, (attempt,) = world.bounce("opensmtpd.plain")
    assert message.state == "delivered", message.last_reply
    assert (attempt.tls, attempt.tls_policy) == ("TLSv1.3", "opportunistic")
    assert world.listener.next(30).recipients == ["ann@opensmtpd.plain"]
