"""Decode text in the charset that a mail names. Pure.

Only charsets of the table below are decoded. Never look up a label from a mail in Python's own
registry: it also has codecs that are not charsets (`unicode_escape`, `zlib`, `rot13`) or
that need quadratic time (`punycode`).
"""

import re


def _family(prefix: str, codec: str, *numbers: int) -> dict[str, str]:
    return {f"{prefix}{number}": f"{codec}{number}" for number in numbers}


_DOS = (437, 720, 737, 775, 850, 852, 855, 857, 858, 860, 861, 862, 863, 864, 865, 866, 869, 1125)

# By label: its letters and digits in lower case, without a leading `x` or `cs`. Values are Python
# codecs; the superset where senders commonly use it (GB18030 for GB 2312).
_CODECS: dict[str, str] = {
    "utf8": "utf-8",
    "unicode11utf8": "utf-8",
    "cp65001": "utf-8",
    # Non-ASCII text that is labelled ASCII is most often UTF-8.
    **dict.fromkeys(("ascii", "usascii", "us", "iso646us", "ansix341968", "646"), "utf-8"),
    **dict.fromkeys(("utf7", "unicode11utf7"), "utf-7"),
    "utf16": "utf-16",
    "utf16be": "utf-16-be",
    "utf16le": "utf-16-le",
    "utf32": "utf-32",
    "utf32be": "utf-32-be",
    "utf32le": "utf-32-le",
    **_family("latin", "latin", *range(1, 11)),
    "isolatin1": "iso8859-1",
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
    "cnbig5": "cp950",
    "big5eten": "cp950",
    "cp950": "cp950",
    "big5hkscs": "big5hkscs",
    "shiftjis": "cp932",
    "sjis": "cp932",
    "mskanji": "cp932",
    "windows31j": "cp932",
    "cp932": "cp932",
    "ms932": "cp932",
    "eucjp": "euc-jp",
    "ujis": "euc-jp",
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
_PUNCTUATION = re.compile(r"[^a-z0-9]+")
# Lone surrogates, U+FFFE and U+FFFF: UTF-8, XML and SQS do not allow them all.
NOT_INTERCHANGEABLE = re.compile("[\ud800-\udfff\ufffe\uffff]")


def decode_charset(octets: bytes, charset: str) -> str | None:
    """Return the text of `octets`, or None for a charset that is not in the table.

    Octets that are invalid in the charset and `NOT_INTERCHANGEABLE` characters become U+FFFD. A
    language (`utf-8*de`, RFC 2231 §5) or a comment may follow the label.
    """
    codec = find_codec(charset)
    return None if codec is None else decode_known(octets, codec)


def find_codec(charset: str) -> str | None:
    """Return Python's name for the charset, or None when it is not in the table."""
    name = charset.partition("(")[0].partition("*")[0][:40]
    label = _PUNCTUATION.sub("", name.lower())
    return _CODECS.get(label) or _CODECS.get(label.removeprefix("x").removeprefix("cs"))


def decode_known(octets: bytes, codec: str) -> str:
    """Return the text of `octets` in a codec that `find_codec` returned."""
    return NOT_INTERCHANGEABLE.sub("\ufffd", octets.decode(codec, "replace"))
