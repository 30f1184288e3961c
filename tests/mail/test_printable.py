import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.printable import escaped, is_visible, printable

# Default_Ignorable_Code_Point of Unicode 16, and the Braille pattern without dots.
SHOW_NOTHING = [
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0xFFF0, 0xFFF9),
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE1000),
]
BIDIRECTIONAL = [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("550 5.1.1 Bob is away", "550 5.1.1 Bob is away"),
        ("Grüße, 世界 🙂", "Grüße, 世界 🙂"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),  # CSI of 8-bit terminals
        ("one\r\ntwo\ttabs", "one\\x0d\\x0atwo\\x09tabs"),
        ("a\x00b\x7f", "a\\x00b\\x7f"),
        ("next\x85line\u2028and\u2029", "next\\x85line\\u2028and\\u2029"),
        ("moc.elpmaxe\u202e@bob", "moc.elpmaxe\\u202e@bob"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        # A lone surrogate cannot be written: pytest-xdist cannot send it as an id.
        pytest.param("lone \udc9b\ud800", "lone \\udc9b\\ud800", id="surrogates"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("no\xa0break", "no\\xa0break"),
    ],
)
def test_what_is_not_visible_becomes_an_escape(text, expected):
    assert printable(text) == expected


@pytest.mark.parametrize("code", BIDIRECTIONAL)
def test_bidirectional_controls_are_escaped(code):
    assert printable(f"a{chr(code)}b") == f"a\\u{code:04x}b"


@pytest.mark.parametrize("shown", ["a", "ann@example.com", "한글", "⠁"])
def test_what_shows_nothing_is_escaped(shown):
    for code in SHOW_NOTHING:
        escape = printable(f"{shown}{chr(code)}").removeprefix(shown)
        assert escape in {f"\\x{code:02x}", f"\\u{code:04x}", f"\\U{code:08x}"}
        assert not is_visible(chr(code))
    assert printable(shown) == shown


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_c0_and_c1_controls_are_escaped(code):
    assert printable(f"a{chr(code)}b") == f"a\\x{code:02x}b"


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("abc\x1b", 7, "abc\\x1b"),
        ("abc\x1b", 6, "abc…"),
        ("\x1b" * 3, 9, "\\x1b\\x1b…"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
        ("", 0, ""),
    ],
)
def test_long_text_is_cut_and_never_within_an_escape(text, limit, expected):
    assert printable(text, limit) == expected


def test_the_default_limit_is_200_characters():
    assert printable("x" * 200) == "x" * 200
    assert printable("x" * 201) == "x" * 199 + "…"


def test_without_a_limit_nothing_is_cut():
    assert printable("\n" * 1000, limit=None) == "\\x0a" * 1000


class CountedText(str):
    """Counts how many of its characters are taken out."""

    __slots__ = ()
    taken = 0

    def __getitem__(self, key):
        piece = super().__getitem__(key)
        type(self).taken += len(piece)
        return piece


def test_the_work_depends_on_the_limit_and_not_on_the_text():
    CountedText.taken = 0
    assert printable(CountedText("\x1b" * 1_000_000), 100) == "\\x1b" * 24 + "…"
    assert CountedText.taken == 100


@given(st.text(alphabet=st.characters(codec=None)), st.none() | st.integers(0, 300))
def test_the_result_is_visible_and_within_the_limit(text, limit):
    result = printable(text, limit)
    assert result.isprintable()
    result.encode("utf-8")
    assert limit is None or len(result) <= limit


@given(st.characters(codec=None))
def test_every_format_and_control_character_is_escaped(character):
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        assert escaped(character).startswith("\\")
        assert escaped(character).isascii()
