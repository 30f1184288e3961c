"""Command lines: their length, characters and verb. Pure."""

import re

from sendback.smtp import replies
from sendback.smtp.replies import CommandError

# RFC 5321 §4.5.3.1.4, and what the extensions add: RFC 1870 §3, RFC 6152 §2, RFC 6531 §3.4,
# RFC 3461 §4; XSENDBACK-VERDICTS, with a value of 200. Octets with the CR LF.
MAX_LINE = 512
MAX_LINES = {"MAIL": MAX_LINE + 26 + 17 + 10 + 9 + 107 + 220, "RCPT": MAX_LINE + 29 + 507}
LONGEST_LINE = max(MAX_LINES.values())

_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*")
_GREETING = re.compile(rb"(?:EHLO|HELO) ", re.IGNORECASE)


def split_line(line: bytes) -> tuple[str, str]:
    """Return the verb in upper case and its argument. Raises `CommandError`."""
    if len(line) > LONGEST_LINE:
        raise CommandError(replies.LINE_TOO_LONG)
    content = line[:-2]
    if line[-2:] != b"\r\n" or b"\r" in content:
        raise CommandError(replies.BARE_LINE_FEED)
    text = _decode(content)
    # `isprintable` decides for ASCII, in a tenth of the time.
    if not (text.isascii() and text.isprintable()) and not _TEXT.fullmatch(text):
        raise CommandError(replies.NOT_TEXT)
    verb, _, argument = text.rstrip(" ").partition(" ")
    verb = verb.upper()
    if len(line) > MAX_LINES.get(verb, MAX_LINE):
        raise CommandError(replies.LINE_TOO_LONG)
    return verb, argument.strip(" ")


def _decode(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        # RFC 5321 §4.1.4: mail must not be refused because of the client's name.
        if _GREETING.match(content):
            return content.decode(errors="replace")
        raise CommandError(replies.NOT_TEXT) from None
