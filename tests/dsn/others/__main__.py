"""Has Postfix and Exim bounce the same mails, and keeps what they send."""

import smtplib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.partners.exim import Exim
from tests.partners.listener import Listener
from tests.partners.postfix import Postfix

FOLDER = Path(__file__).parent
MAIL = (
    b"From: Ann <ann@sender.example>\r\nTo: bob@example.com\r\nSubject: Lunch\r\n"
    b"Message-ID: <lunch@sender.example>\r\nDate: Sun, 01 Mar 2026 12:00:00 +0000\r\n\r\n"
    b"Are you free on Friday?\r\n"
)
PARAMETERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plain": ((), ()),
    "headers": (
        ("RET=HDRS", "ENVID=QQ314159"),
        ("NOTIFY=FAILURE", "ORCPT=rfc822;Bob+2Btag@Example.com"),
    ),
    "full": (("RET=FULL",), ("NOTIFY=FAILURE,DELAY",)),
}


def postfix(relay: int) -> Postfix:
    return Postfix(
        "relay_domains = example.com\n"
        "transport_maps = inline:{ { example.com = error:5.1.1 no such user here } }\n"
        f"relayhost = [127.0.0.1]:{relay}\nsmtpd_reject_unlisted_recipient = no\n"
    )


def main() -> None:
    servers: dict[str, Callable[[int], AbstractContextManager[Postfix | Exim]]] = {
        "postfix": postfix,
        "exim": Exim,
    }
    for name, start in servers.items():
        with Listener(enable_SMTPUTF8=True) as listener, start(listener.port) as server:
            for case, (mail, rcpt) in PARAMETERS.items():
                with smtplib.SMTP("127.0.0.1", server.port) as smtp:  # type: ignore[attr-defined]
                    smtp.ehlo("mx.example.net")
                    smtp.mail("ann@sender.example", mail)
                    smtp.rcpt("bob@example.com", rcpt)
                    smtp.data(MAIL)
                bounce = listener.next(30).content
                (FOLDER / f"{name}-{case}.eml").write_bytes(bounce)


if __name__ == "__main__":
    main()
