"""Encoded words in the charsets that mail is written in, and in what is none."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.charsets import decode_charset
from sendback.mail.encoded_words import decode_words


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?J=C3=BCrgen?=", "Jürgen"),
        ("=?UTF-8?B?SsO8cmdlbg==?=", "Jürgen"),
        ("=?utf-8?b?SsO8cmdlbg?=", "Jürgen"),  # padding is often missing
        ("=?iso-8859-1?q?caf=E9_noir?=", "café noir"),
        ("=?us-ascii*en?Q?Keith_Example?=", "Keith Example"),
        ("=?utf-8*de?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        ("=?windows-874?Q?=A1?=", "ก"),
        ("=?cp-850?Q?=81?=", "ü"),
        ("=?iso-8859-8-i?B?4Q==?=", "ב"),
        ("=?x-sjis?B?k/o=?=", "日"),
        ("=?ISO-2022-JP?B?GyRCRnwbKEI=?=", "日"),
        ("=?gb2312?B?sKE=?=", "啊"),
        ("=?ks_c_5601-1987?B?sKE=?=", "가"),
        ("=?koi8-r?q?=C1?=", "а"),
        # White space between two words goes, other text stays (RFC 2047 §6.2).
        ("=?utf-8?q?a?=  =?utf-8?q?b?= c =?utf-8?q?d?=", "ab c d"),
        ("=?utf-8?q?a?= =?iso-8859-1?q?=E9?=", "aé"),
        # A character cut in two.
        ("=?utf-8?B?w7zD?= =?utf-8?B?vMO8?=", "üüü"),
        ("=?utf-8?q?=C3?= =?UTF8?b?vA==?=", "ü"),
        # Blanks inside a word are illegal and common.
        ("=?utf-8?q?two words?=", "two words"),
        # What is none stays as it is.
        ("=?nonsense?x?y?=", "=?nonsense?x?y?="),
        ("=?nonsense?q?y?= =?utf-8?q?a?=", "=?nonsense?q?y?= a"),
        ("=?utf-8?q?open", "=?utf-8?q?open"),
        ("=??q?x?=", "=??q?x?="),
    ],
)
def test_decodes(text, decoded):
    assert decode_words(text) == decoded


@pytest.mark.parametrize(
    "name",
    [
        "unicode_escape", "raw_unicode_escape", "punycode", "idna", "rot13",
        "zlib", "bz2", "hex", "base64", "quopri", "uu", "mbcs", "oem", "undefined", "charmap",
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["q", "b"])
def test_a_codec_of_pythons_that_is_no_charset_decodes_nothing(name, encoding):
    text = f"=?{name}?{encoding}?YWJj?="
    assert decode_words(text) == text
    assert decode_charset(b"abc", name) is None


def test_what_no_carrier_takes_is_replaced():
    assert decode_charset(b"a\xff\xfeb", "utf-8") == "a\ufffd\ufffdb"
    assert decode_charset(b"\xff\xff\xfe\xff", "utf-16-le") == "\ufffd\ufffd"
    assert decode_charset(b"\x00\xd8", "utf-16le") == "\ufffd"


@given(
    st.text(),
    st.sampled_from(["utf-8", "utf-16", "gb18030", "iso-2022-jp", "x-sjis", "hz-gb-2312"]),
)
def test_every_result_can_be_sent(text, charset):
    octets = text.encode("utf-8", "replace")
    decode_words(f"=?{charset}?q?{text}?= {text}").encode("utf-8", "surrogatepass")
    found = decode_charset(octets, charset)
    assert found is not None
    found.encode("utf-8")


@given(st.text(alphabet="ab é=?_", max_size=30))
def test_text_that_is_encoded_comes_back(text):
    octets = text.encode()
    word = "=?utf-8?b?" + codecs.encode(octets, "base64").decode().replace("\n", "") + "?="
    assert decode_words(word) == text
