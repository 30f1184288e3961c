"""Durable 5 KB mails a second from smtp-source on 10 connections: Sendback, and Postfix.

Postfix only takes the mails into its hold queue: no delivery, nothing else to do.
"""

from tests.partners.postfix import Postfix

from bench.common import ROUNDS, row, sendback, smtp_source

MESSAGES = 3000
_HOLD = (
    "smtpd_recipient_restrictions = check_recipient_access static:HOLD, permit\nin_flow_delay = 0"
)


def main() -> None:
    print("Receiving, smtp-source, 10 connections, a new one for each 5 KB mail")
    ours: list[float] = []
    theirs: list[float] = []
    with sendback() as server, Postfix(_HOLD) as postfix:
        for port in (server.smtp_port, postfix.port):
            smtp_source(port, 500, to=_to(port, postfix))
        for _ in range(ROUNDS):
            ours.append(smtp_source(server.smtp_port, MESSAGES, to="bob@example.com"))
            theirs.append(smtp_source(postfix.port, MESSAGES, to="bob@sender.example"))
    middle, other = row("Sendback", ours, "mails/s"), row("Postfix (hold queue)", theirs, "mails/s")
    print(f"  ratio Sendback / Postfix: {middle / other:.2f}")


def _to(port: int, postfix: Postfix) -> str:
    return "bob@sender.example" if port == postfix.port else "bob@example.com"


if __name__ == "__main__":
    main()
