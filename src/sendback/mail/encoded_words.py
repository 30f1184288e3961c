"""Decode encoded words (RFC 2047, RFC 2231 §5) and text in a named charset. Pure.

Theory of operation. `decode_words` walks over the text once. Neighbouring words of one charset are
joined as octets before they are decoded, because many senders cut a character in two (RFC 2047 §5
forbids it, and every mail client copes). White space between two words is dropped (§6.2). A word
that cannot be decoded stays as it is.

Only charsets of the table below are decoded. Python's own registry must never be asked with a
label from a mail: it also holds codecs that are no charsets (`unicode_escape`, `zlib`, `rot13`),
that need quadratic time (`punycode`), or that make text which no protocol can carry (`utf-7` and
`unicode_escape` produce lone surrogates).
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from dataclasses import dataclass

# Neither part can hold `?`, so no start of a word is scanned past the next one: one pass. Blanks
# inside a word are illegal and common.
_WORD = re.compile(r"=\?([!->@-~]+)\?([bBqQ])\?([\t !->@-~]*)\?=")


def _family(prefix: str, codec: str, *numbers: int) -> dict[str, str]:
    return {f"{prefix}{number}": f"{codec}{number}" for number in numbers}


_DOS = (437, 720, 737, 775, 850, 852, 855, 857, 858, 860, 861, 862, 863, 864, 865, 866, 869, 1125)

# By label, in lower case, without `-`, `_` and a leading `x-` or `cs`. Values are Python codecs;
# where a superset is what senders really write, it stands in (GB18030 for GB 2312).
_CODECS: dict[str, str] = {
    "utf8": "utf-8",
    "unicode11utf8": "utf-8",
    "cp65001": "utf-8",
    "utf16": "utf-16",
    "utf16be": "utf-16-be",
    "utf16le": "utf-16-le",
    "utf32": "utf-32",
    "utf32be": "utf-32-be",
    "utf32le": "utf-32-le",
    "ascii": "ascii",
    "usascii": "ascii",
    "us": "ascii",
    "iso646us": "ascii",
    "ansix3.41968": "ascii",
    "latin1": "iso8859-1",
    "isolatin1": "iso8859-1",
    "latin2": "iso8859-2",
    "latin9": "iso8859-15",
    **_family("iso8859", "iso8859-", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16),
    "iso88596i": "iso8859-6",
    "iso88596e": "iso8859-6",
    "iso88598i": "iso8859-8",
    "iso88598e": "iso8859-8",
    **_family("windows", "cp", 874, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258),
    **_family("cp", "cp", 874, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258, *_DOS),
    **_family("ibm", "cp", *_DOS),
    **_family("dos", "cp", *_DOS),
    "ansi": "cp1252",
    "tis620": "cp874",
    "koi8r": "koi8-r",
    "koi8": "koi8-r",
    "koi8u": "koi8-u",
    "koi8t": "koi8-t",
    "macintosh": "mac-roman",
    "mac": "mac-roman",
    "macroman": "mac-roman",
    "maccyrillic": "mac-cyrillic",
    "macgreek": "mac-greek",
    "macturkish": "mac-turkish",
    "macce": "mac-latin2",
    "gb2312": "gb18030",
    "gb231280": "gb18030",
    "euccn": "gb18030",
    "gbk": "gb18030",
    "cp936": "gb18030",
    "windows936": "gb18030",
    "gb18030": "gb18030",
    "hzgb2312": "hz",
    "big5": "cp950",
    "big5eten": "cp950",
    "cp950": "cp950",
    "big5hkscs": "big5hkscs",
    "shiftjis": "cp932",
    "sjis": "cp932",
    "mskanji": "cp932",
    "windows31j": "cp932",
    "cp932": "cp932",
    "eucjp": "euc-jp",
    "iso2022jp": "iso2022-jp-ext",
    "iso2022jp1": "iso2022-jp-1",
    "iso2022jp2": "iso2022-jp-2",
    "iso2022jp3": "iso2022-jp-3",
    "iso2022jpms": "iso2022-jp-ext",
    "cp50220": "iso2022-jp-ext",
    "cp50221": "iso2022-jp-ext",
    "euckr": "cp949",
    "ksc56011987": "cp949",
    "ksc5601": "cp949",
    "cp949": "cp949",
    "uhc": "cp949",
    "windows949": "cp949",
    "iso2022kr": "iso2022-kr",
    "johab": "johab",
}
_SEPARATORS = str.maketrans("", "", "-_ :")
# What JSON, SQS and XML cannot carry: U+FFFE, U+FFFF and lone surrogates.
_NOT_CARRIED = re.compile("[\ud800-\udfff\ufffe\uffff]")


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


def decode_charset(octets: bytes, charset: str) -> str | None:
    """Return the text of `octets`, or None for a charset that is not in the table.

    Octets that mean nothing in the charset become U+FFFD, and so does what JSON and XML cannot
    carry. The label may have a language behind it: `utf-8*de` (RFC 2231 §5).
    """
    codec = _codec(charset)
    if codec is None:
        return None
    return _NOT_CARRIED.sub("\ufffd", octets.decode(codec, "replace"))


def _codec(charset: str) -> str | None:
    label = charset.partition("*")[0].lower()[:40].translate(_SEPARATORS)
    return _CODECS.get(label) or _CODECS.get(label.removeprefix("x").removeprefix("cs"))


def _runs(text: str) -> Iterator[list[_Word]]:
    """Yield the words that can be decoded, those together that only white space separates."""
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
    codec = _codec(match[1])
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
            yield _NOT_CARRIED.sub("\ufffd", octets.decode(run[start].charset, "replace"))
            start = end
