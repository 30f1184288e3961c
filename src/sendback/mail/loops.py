"""Detect mail to which no automatic response must be sent (RFC 3834 §2, RFC 5321 §6.3). Pure.

A rule's bounce is suppressed for such mail. An explicit SendBounce is sent and logged.
"""

import re

from sendback.mail.headers import count_fields, field_values

MAX_RECEIVED = 100  # RFC 5321 §6.3: "at least 100"


def reason_for_silence(header: bytes) -> str | None:
    """Return why a mail with this header gets no automatic response; None if it may get one."""
    for value in field_values(header, "Auto-Submitted"):
        if _keyword(value) != b"no":
            return "it is automatic itself (Auto-Submitted)"
    for value in field_values(header, "Content-Type"):
        if _keyword(value) == b"multipart/report":
            return "it is a report itself"
    received = count_fields(header, "Received")
    if received > MAX_RECEIVED:
        return f"it has passed {received} servers: a loop"
    return None


def _keyword(value: bytes) -> bytes:
    """Return the value without parameters and comments, in lower case."""
    return re.split(rb"[;(\s]", value, maxsplit=1)[0].lower()
