"""Durable 5 KB mails a second from smtp-source, on 1, 10 and 50 connections, a new one each mail.

Sendback on SQLite and on PostgreSQL, with one worker and two; Postfix, which only takes the mails
into its hold queue; and the physical limit, a server that parses nothing. One after the other in
each round, so that all see the same machine.
"""

from statistics import median

from bench.common import smtp_source
from bench.results import record
from bench.servers import Measured, Servers, measuring, scaled

CONNECTIONS = {1: 600, 10: 2500, 50: 3000}  # and how many mails
ROUNDS = 3


def main() -> None:
    print("Receiving, smtp-source, a new connection for each 5 KB mail")
    with Servers() as servers:
        measured = [
            servers.sqlite(),
            servers.postgresql(),
            servers.sqlite("Sendback, SQLite, 2 workers", "--workers", "2"),
            servers.postgresql("Sendback, PostgreSQL, 2 workers", "--workers", "2"),
            servers.postfix(),
            servers.bare_sink(),
        ]
        for server in measured:
            smtp_source(server.port, scaled(300), to=server.recipient)
        for connections, mails in CONNECTIONS.items():
            for _ in range(ROUNDS):
                for server in measured:
                    with measuring(server, connections, scaled(mails)):
                        smtp_source(
                            server.port,
                            scaled(mails),
                            connections=connections,
                            to=server.recipient,
                        )
            _print(measured, connections)
    record(
        "receive",
        {
            server.name: {
                str(n): [median(server.rates[n]), median(server.costs[n])] for n in CONNECTIONS
            }
            for server in measured
        },
    )


def _print(measured: list[Measured], connections: int) -> None:
    print(f"  {connections} connections")
    postfix = next(median(s.rates[connections]) for s in measured if "Postfix" in s.name)
    for server in measured:
        rate, cost = median(server.rates[connections]), median(server.costs[connections])
        print(
            f"    {server.name:34} {rate:7,.0f} mails/s  {rate / postfix:5.2f} x Postfix"
            f"  {cost:7,.0f} us CPU a mail"
        )


if __name__ == "__main__":
    main()
