"""Write header fields and DSN fields. No value from outside can become structure.

A value with a line end, a control character or a non-ASCII character is refused;
a long one is folded at white space (RFC 5322 §2.2.3) and no line passes 998 octets (§2.1.1).
"""

import re

from sendback.dsn.errors import DsnError
from sendback.mail.address import Address
from sendback.mail.envelope import OriginalRecipient

FOLD_AT = 78
MAX_LINE = 998

_PLAIN = re.compile(r"[\t -~]*")
_WORD = re.compile(r"[ \t]*[^ \t]+")
# RFC 6533 §3, utf-8-addr-xtext: printable ASCII but these stands for itself.
_XTEXT_ESCAPED = re.compile(r"[^!-*,-<>-\[\]-~]")


def check_value(name: str, value: str) -> None:
    """Raise `DsnError`, with the field's name, unless `write_field` can write the value."""
    # The two methods are faster; they accept all valid values without a tab.
    if not (value.isascii() and value.isprintable()) and not _PLAIN.fullmatch(value):
        raise DsnError(name, "line ends, control characters and non-ASCII are not allowed")
    # Stripped before it is folded: `_WORD` would look at trailing blanks once for each of them.
    stripped = value.strip(" \t")
    if not stripped:
        raise DsnError(name, "the value is empty")
    if len(stripped) > MAX_LINE - len(name) - 2:
        _fold(name, stripped)


def write_field(name: str, value: str) -> bytes:
    """Return `name: value` and CRLF, folded. Raise `DsnError` with the field's name."""
    check_value(name, value)
    value = value.strip(" \t")
    if len(name) + 2 + len(value) > FOLD_AT:
        return _fold(name, value).encode("ascii")
    return f"{name}: {value}\r\n".encode("ascii")


def write_utf8_field(name: str, value: str) -> bytes:
    """Return a field of an SMTPUTF8 message (RFC 6532); `value` must be a parsed address."""
    return f"{name}: {value}\r\n".encode()


def _fold(name: str, value: str) -> str:
    """Return the lines of a field; `value` does not end in white space.

    A line breaks before white space that a word follows, so that no folded line is blank.
    """
    lines = [f"{name}:"]
    for word in _WORD.findall(f" {value}"):
        if len(lines[-1]) + len(word) > FOLD_AT and lines[-1] != f"{name}:":
            lines.append(word)
        else:
            lines[-1] += word
    if any(len(line) > MAX_LINE for line in lines):
        raise DsnError(name, f"has no white space to fold at in {MAX_LINE} characters")
    return "\r\n".join(lines) + "\r\n"


def final_recipient(address: Address) -> str:
    """Return `rfc822; bob@example.com`; `utf-8; …` only for a non-ASCII local part (RFC 6533 §3).

    A non-ASCII domain is written in A-labels: common readers ignore types other than rfc822.
    """
    if address.needs_smtputf8:
        return "utf-8; " + encode_utf8_xtext(f"{address.local}@{address.ascii_domain}")
    return f"rfc822; {address.with_ascii_domain}"


def original_recipient(original: OriginalRecipient) -> str:
    """Return `rfc822; Bob@example.com`, from ORCPT (RFC 3464 §2.3.1, RFC 6533 §3)."""
    if original.address_type.lower() == "utf-8":
        return f"{original.address_type}; {encode_utf8_xtext(original.address)}"
    return f"{original.address_type}; {original.address}"


def encode_utf8_xtext(text: str) -> str:
    """Return utf-8-addr-xtext, with other characters in hexadecimal (RFC 6533 §3)."""
    return _XTEXT_ESCAPED.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)


def lines_are_sound(data: bytes) -> bool:
    """Whether every line end is CRLF and no line passes 998 octets (RFC 5322 §2.1.1)."""
    ends = data.count(b"\r\n")
    if data.count(b"\r") != ends or data.count(b"\n") != ends:
        return False
    start = 0
    while len(data) - start > MAX_LINE:
        # The last line end that a line may have here: jumps over many lines at once.
        end = data.rfind(b"\r\n", start, start + MAX_LINE + 2)
        if end < 0:
            return False
        start = end + 2
    return True
