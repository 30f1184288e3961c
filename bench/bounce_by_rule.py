"""Mail that a rule bounces, until smtp-sink has accepted the bounces: mails a second, CPU a mail.

Sendback on SQLite and on PostgreSQL, one after the other in each round.
"""

import time
from statistics import median

from tests.partners.clients import ses

from bench.common import sink, smtp_source
from bench.results import record
from bench.servers import Measured, Servers, measuring, scaled

MAILS = 2000
CONNECTIONS = 20
ROUNDS = 3


def main() -> None:
    print(f"Rule, bounce, smtp-sink, {CONNECTIONS} connections, 5 KB mails")
    with sink() as port, Servers() as servers:
        relay = ("--outbound", f"smtp://127.0.0.1:{port}")
        measured = [
            servers.sqlite("Sendback, SQLite", *relay),
            servers.postgresql("Sendback, PostgreSQL", *relay),
        ]
        for server in measured:
            _create_rule(server)
            _bounce(server, scaled(200))
        for _ in range(ROUNDS):
            for server in measured:
                with measuring(server, "rule", scaled(MAILS)):
                    _bounce(server, scaled(MAILS))
        for server in measured:
            rate, cost = median(server.rates["rule"]), median(server.costs["rule"])
            print(f"    {server.name:34} {rate:7,.0f} mails/s  {cost:7,.0f} us CPU a mail")
    record("rule", {s.name: [median(s.rates["rule"]), median(s.costs["rule"])] for s in measured})


def _create_rule(server: Measured) -> None:
    if server.sendback is None:
        return
    client = ses(server.sendback.endpoint)
    client.create_receipt_rule_set(RuleSetName="main")
    bounce = {"SmtpReplyCode": "550", "Message": "No", "Sender": "m@example.com"}
    rule = {"Name": "all", "Enabled": True, "Actions": [{"BounceAction": bounce}]}
    client.create_receipt_rule(RuleSetName="main", Rule=rule)
    client.set_active_receipt_rule_set(RuleSetName="main")
    time.sleep(1.1)  # a server follows within a second


def _bounce(server: Measured, mails: int) -> None:
    wanted = server.count("delivered") + mails
    smtp_source(server.port, mails, connections=CONNECTIONS, to=server.recipient)
    while server.count("delivered") < wanted:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
