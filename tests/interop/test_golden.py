"""Postfix and Exim take every golden bounce by SMTP."""

import smtplib

import pytest

from sendback.dsn import compose
from tests.conftest import need
from tests.dsn.cases import CASES
from tests.partners import exim, postfix


def deliver(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="mx.example.net") as smtp:
        smtp.ehlo()
        for name, case in CASES.items():
            options = []
            if case.needs_8bitmime:
                options.append("BODY=8BITMIME")
            if case.needs_smtputf8:
                options.append("SMTPUTF8")
                smtp.command_encoding = "utf-8"
            domain = case.to.ascii_domain
            assert smtp.mail("", options)[0] == 250, name
            assert smtp.rcpt(f"{case.to.local}@{domain}")[0] == 250, name
            code, reply = smtp.data(compose(case, "b-1"))
            assert code == 250, (name, reply)


@pytest.fixture
def postfix_server():
    need("postfix", available=postfix.is_usable())
    domains = "sender.test, xn--snder-gra.test"
    discard = f"inline:{{ {', '.join(f'{domain}=discard:' for domain in domains.split(', '))} }}"
    with postfix.Postfix(f"relay_domains = {domains}\ntransport_maps = {discard}") as server:
        yield server


def test_postfix_takes_every_golden_bounce(postfix_server):
    deliver(postfix_server.port)
    log = postfix_server.wait_for_log("status=sent")
    assert "from=<>" in log
    assert "reject" not in log


def test_exim_takes_every_golden_bounce():
    need("exim (unpacked by tests/partners/install.sh)", available=exim.is_usable())
    with exim.Exim(relay=postfix.free_port()) as server:
        deliver(server.port)
        assert server.log.count("<= <>") == len(CASES)
