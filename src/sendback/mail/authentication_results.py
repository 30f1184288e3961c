"""Read `Authentication-Results` fields that came with a mail (RFC 8601 §2.2). Pure."""

import re

from sendback.mail.encoded_words import decode_words

# A token of RFC 2045 §5.1. Possessive repeats: one pass, no backtracking.
_TOKEN = re.compile(r"[^\s()<>@,;:\\\"/\[\]?=]++")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"')
_ESCAPED = re.compile(r"\\(.)")
_BEHIND = " \t;(/"  # may follow the name; a version is sometimes written with a slash


def authserv_id(value: str) -> str | None:
    """Return the server that an unfolded field names as its author; None if it is malformed.

    Comments, blanks, quotes and the version are ignored (RFC 8601 §2.2). Other readers may
    attribute a malformed field to any server. Encoded words are decoded, as some readers do.
    """
    value = decode_words(value)
    position = _after_comments(value)
    if position is None:
        return None
    quoted = _QUOTED.match(value, position)
    match = quoted or _TOKEN.match(value, position)
    if match is None or value[match.end() : match.end() + 1] not in _BEHIND:
        return None
    return _ESCAPED.sub(r"\1", quoted[1]) if quoted else match[0]


def _after_comments(value: str) -> int | None:
    """Return the position after leading blanks and comments; None for an unclosed comment."""
    position, depth = 0, 0
    while position < len(value):
        character = value[position]
        if character == "\\" and depth:
            position += 1
        elif character == "(":
            depth += 1
        elif character == ")" and depth:
            depth -= 1
        elif not depth and character not in " \t":
            return position
        position += 1
    return None if depth else position
