"""Composing and parsing bounces, beside the standard library's email in the same run."""

import email
import email.policy
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage, Message
from email.mime.base import MIMEBase
from email.utils import format_datetime
from functools import partial
from statistics import median

from sendback.dsn import (
    REASONS,
    Action,
    Bounce,
    MtaName,
    NotADsnError,
    RecipientFields,
    Report,
    ReturnedHeaders,
    ReturnedMessage,
    compose,
    parse,
    parse_address,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HEADER = b"".join(
    b"X-Header-%02d: some value of an ordinary length, as they are\r\n" % n for n in range(20)
)
BODY = b"\r\n" + (b"x" * 76 + b"\r\n") * 47
RECIPIENTS = ("bob@example.com", "eve@example.com", "joe@example.com")


# What a stranger may send as a bounce: 2 MiB of each.
_START = b'Content-Type: multipart/report; boundary="b"\r\n'
_REPORT = _START + b"\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
HOSTILE: dict[str, tuple[bytes, bytes]] = {
    "delimiters": (_START + b"\r\n", b"--b\r\n"),
    "dashes": (_START + b"\r\n", b"--"),
    "bare CR": (b"", b"\r"),
    "empty lines in the report": (_REPORT, b"\r\n"),
    "recipients": (_REPORT, b"Final-Recipient: x\r\n\r\n"),
    "parameters": (b"Content-Type: multipart/report", b"; a=b"),
    "backslashes": (b'Content-Type: multipart/report; boundary="', b"\\"),
    "comments": (_REPORT + b"Final-Recipient: x\r\nAction: ", b"("),
}


def main() -> None:
    print("Bounces")
    hostile()
    small = _bounce(ReturnedHeaders(HEADER))
    ours = _microseconds(lambda: compose(small, "boundary"), 2000)
    theirs = _microseconds(_stdlib, 100)
    _row("compose, 5 KB original, 3 recipients", ours)
    _row("stdlib email, the same message", theirs)
    print(f"  ratio stdlib / ours: {theirs / ours:.0f}")

    octets = HEADER + b"\r\n" + (b"x" * 76 + b"\r\n") * 13443
    returned = ReturnedMessage(octets)
    large = _bounce(returned)
    whole = _microseconds(lambda: compose(large, "boundary"), 50)
    copying = _microseconds(lambda: bytes(bytearray(octets)), 50)
    joining = _microseconds(lambda: b"".join((b"a", octets, b"b")), 50)
    judging = _microseconds(lambda: ReturnedMessage(octets), 20)
    _row("compose, 1 MB original returned whole", whole)
    _row("copying it twice (bytes of bytearray)", copying)
    _row("copying it once (join)", joining)
    print(f"  ratio compose / copying once: {whole / joining:.1f}")
    _row("judging that mail can carry it", judging)

    content = compose(small, "boundary")
    reading = _microseconds(lambda: parse(content), 1000)
    their_reading = _microseconds(lambda: _read_with_stdlib(content), 100)
    _row("parse", reading)
    _row("stdlib email, the same fields", their_reading)
    print(f"  ratio stdlib / ours: {their_reading / reading:.1f}")


def _bounce(returned: ReturnedHeaders | ReturnedMessage) -> Bounce:
    reason = REASONS["DoesNotExist"]
    return Bounce(
        sender="mailer-daemon@example.com",
        to=parse_address("ann@sender.example"),
        date=NOW,
        message_id="1@mx.example.com",
        in_reply_to="<lunch@sender.example>",
        report=Report(
            reporting_mta=MtaName("dns", "mx.example.com"),
            arrival_date=NOW,
            recipients=tuple(
                RecipientFields(
                    final_recipient=parse_address(address),
                    action=Action.FAILED,
                    status=reason.status,
                    diagnostic_code=reason.diagnostic_code,
                    last_attempt_date=NOW,
                )
                for address in RECIPIENTS
            ),
        ),
        returned=returned,
    )


def _stdlib() -> bytes:
    message = EmailMessage(policy=email.policy.SMTP)
    message["Date"] = format_datetime(NOW)
    message["From"] = "mailer-daemon@example.com"
    message["To"] = "ann@sender.example"
    message["Message-ID"] = "<1@mx.example.com>"
    message["Subject"] = "Delivery Status Notification (Failure)"
    message["Auto-Submitted"] = "auto-replied"
    message["MIME-Version"] = "1.0"
    message["Content-Type"] = 'multipart/report; report-type="delivery-status"'
    human = EmailMessage(policy=email.policy.SMTP)
    human.set_content("This message could not be delivered.\n")
    report = MIMEBase("message", "delivery-status", policy=email.policy.SMTP)
    report.set_payload(
        [_group(Reporting_MTA="dns; mx.example.com")]
        + [
            _group(
                Action="failed",
                Final_Recipient=f"rfc822; {address}",
                Status="5.1.1",
                Diagnostic_Code="smtp; 550 5.1.1 Mailbox does not exist",
            )
            for address in RECIPIENTS
        ]
    )
    returned = MIMEBase("text", "rfc822-headers", policy=email.policy.SMTP)
    returned.set_payload(HEADER.decode())
    message.set_payload([human, report, returned])
    return message.as_bytes()


def _group(**fields: str) -> Message:
    group = Message(policy=email.policy.SMTP)
    for name, value in fields.items():
        group[name.replace("_", "-")] = value
    return group


def _read_with_stdlib(content: bytes) -> list[str]:
    message = email.message_from_bytes(content, policy=email.policy.SMTP)
    groups = message.get_payload(1).get_payload()
    return [str(group["Final-Recipient"]) + str(group["Status"]) for group in groups[1:]]


def _microseconds(work: Callable[[], object], times: int) -> float:
    """The median of single calls, after a warm-up."""
    work()
    values = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        values.append(time.perf_counter() - start)
    return median(values) * 1e6


def _row(name: str, value: float) -> None:
    print(f"  {name:42} {value:10,.1f} µs")


def hostile() -> None:
    """Times of hostile messages; tests/dsn/test_linear.py counts their steps."""
    for name, (start, repeated) in HOSTILE.items():
        content = start + repeated * (2 * 2**20 // len(repeated))
        _row(f"parse, hostile, 2 MiB: {name}", _microseconds(partial(_tried, content), 1))


def _tried(content: bytes) -> None:
    try:
        parse(content)
    except NotADsnError:
        return


if __name__ == "__main__":
    main()
