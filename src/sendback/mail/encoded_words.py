"""Decode encoded words (RFC 2047, RFC 2231 §5). Pure.

Theory of operation. `decode_words` reads the text once. Adjacent words of one charset are joined as
octets before they are decoded, because many senders split a character between words (RFC 2047 §5
forbids it, and mail clients accept it). White space between two words is removed (§6.2). A word
that cannot be decoded is left unchanged.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from dataclasses import dataclass

from sendback.mail.charsets import decode_known, find_codec

# No part can contain `?`, so matching takes one pass. Blanks inside a word are illegal but common.
_WORD = re.compile(r"=\?([!->@-~]+)\?([bBqQ])\?([\t !->@-~]*)\?=")


@dataclass(frozen=True, slots=True)
class _Word:
    start: int
    end: int
    charset: str
    octets: bytes


def decode_words(text: str) -> str:
    """Return `text` with its encoded words decoded (RFC 2047) and everything else unchanged."""
    if "=?" not in text:
        return text
    pieces: list[str] = []
    position = 0
    for run in _runs(text):
        decoded = "".join(_decoded(run))
        pieces += [text[position : run[0].start], decoded]
        position = run[-1].end
    return "".join([*pieces, text[position:]])


def _runs(text: str) -> Iterator[list[_Word]]:
    """Yield runs of decodable words with only white space between them."""
    run: list[_Word] = []
    for match in _WORD.finditer(text):
        word = _read(match)
        if word is None:
            continue
        if run and not _is_blank(text, run[-1].end, word.start):
            yield run
            run = []
        run.append(word)
    if run:
        yield run


def _read(match: re.Match[str]) -> _Word | None:
    codec = find_codec(match[1])
    if codec is None:
        return None
    content = match[3].encode("ascii")
    try:
        octets = _from_base64(content) if match[2] in "bB" else a2b_qp(content, header=True)
    except (Base64Error, ValueError):
        return None
    return _Word(match.start(), match.end(), codec, octets)


def _from_base64(content: bytes) -> bytes:
    """Padding is often missing; one character too many means nothing."""
    digits = content.replace(b" ", b"").replace(b"\t", b"").rstrip(b"=")
    if len(digits) % 4 == 1:
        digits = digits[:-1]
    return a2b_base64(digits + b"=" * (-len(digits) % 4))


def _is_blank(text: str, start: int, end: int) -> bool:
    return start == end or text[start:end].isspace()


def _decoded(run: list[_Word]) -> Iterator[str]:
    start = 0
    for end in range(1, len(run) + 1):
        if end == len(run) or run[end].charset != run[start].charset:
            octets = b"".join(word.octets for word in run[start:end])
            yield decode_known(octets, run[start].charset)
            start = end
