"""Escape untrusted text to one line of visible characters, for terminals, logs, errors and JSON.

A reply, a DNS record or a header field can hold terminal escape sequences (ESC, and the C1 controls
that 8-bit terminals obey), line ends that forge a log line, and bidirectional controls that show
text in another order than it is stored (CVE-2021-42574). Some letters and marks are invisible:
two different addresses could look the same. All of these become visible escapes.
"""

import re

# Of Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt), those that
# `str.isprintable` accepts: joiners and fillers of scripts, variation selectors; and the Braille
# pattern of no dots.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
_ELLIPSIS = "…"
_LAST_OF_LATIN_1 = 0xFF
_LAST_OF_BMP = 0xFFFF


def printable(text: str, limit: int | None = 200) -> str:
    r"""Return the text with every invisible character escaped.

    Characters that are not `str.isprintable` become `\xNN`, `\uNNNN` or `\UNNNNNNNN`: controls,
    line ends, white space other than U+0020, format characters (which include the bidirectional
    ones), surrogates, unassigned and private characters. So do invisible letters, such as U+3164.
    The result has at most `limit` characters (None: no limit) and ends in `…` when it was cut; an
    escape is never cut. The work depends on the limit, not on the length of the text.

        >>> printable("550 \x1b[31mno\u202e")
        '550 \\x1b[31mno\\u202e'
        >>> printable("a long reply", limit=7)
        'a long…'
    """
    whole = limit is None or len(text) <= limit
    if whole and is_visible(text):
        return text
    pieces = [escaped(character) for character in (text if limit is None else text[:limit])]
    if limit is None or (whole and sum(map(len, pieces)) <= limit):
        return "".join(pieces)
    return _cut(pieces, limit)


def is_visible(text: str) -> bool:
    """Whether every character is visible or U+0020."""
    return text.isprintable() and (text.isascii() or not _INVISIBLE.search(text))


def escaped(character: str) -> str:
    r"""Return a visible character as it is, any other as `\xNN`, `\uNNNN` or `\UNNNNNNNN`."""
    if is_visible(character):
        return character
    number = ord(character)
    if number <= _LAST_OF_LATIN_1:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= _LAST_OF_BMP else f"\\U{number:08x}"


def _cut(pieces: list[str], limit: int) -> str:
    """Return as many whole pieces as fit into `limit` characters before the ellipsis."""
    kept: list[str] = []
    left = limit - len(_ELLIPSIS)
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            break
        kept.append(piece)
    return "".join(kept) + _ELLIPSIS[: max(limit, 0)]
