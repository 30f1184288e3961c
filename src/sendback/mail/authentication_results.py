"""Read `Authentication-Results` fields that came with a mail (RFC 8601 §2.2). Pure."""

import re

# Possessive repeats: one pass, no backtracking.
_TOKEN = re.compile(r"[^\s;()\"/]++")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"')
_ESCAPED = re.compile(r"\\(.)")


def authserv_id(value: str) -> str | None:
    """Return the server that an unfolded field names as its author; None if it is malformed.

    Comments, blanks, quotes and the version are ignored (RFC 8601 §2.2). Other readers may
    attribute a malformed field to any server.
    """
    position = _after_comments(value)
    if position is None:
        return None
    quoted = _QUOTED.match(value, position)
    if quoted:
        return _ESCAPED.sub(r"\1", quoted[1])
    token = _TOKEN.match(value, position)
    return token[0] if token else None


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
