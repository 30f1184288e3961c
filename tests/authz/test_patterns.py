"""The matcher against a slow model of it, which goes back to the last `*` for each character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.authz.conditions import OPERATORS
from sendback.authz.patterns import Wild, matches, matches_text, read_literal, read_pattern

CONTEXT = {
    "k": ["a*b"],
    "q": ["?"],
    "colon": ["x:y"],
    "two": ["x", "y"],
    "empty": [""],
}
# What a policy may hold, and the pieces that it is in `CONTEXT`; None: there is no value.
FRAGMENTS = {
    **{character: (character,) for character in "abxy:$d"},
    "*": (Wild.ANY,),
    "?": (Wild.ONE,),
    "${k}": tuple("a*b"),
    "${K}": tuple("a*b"),
    "${q}": ("?",),
    "${colon}": tuple("x:y"),
    "${empty}": (),
    "${*}": ("*",),
    "${?}": ("?",),
    "${$}": ("$",),
    "${none, 'd*'}": tuple("d*"),
    "${two}": None,
    "${two,'d'}": None,
    "${none}": None,
}
fragments = st.lists(st.sampled_from(sorted(FRAGMENTS)), max_size=10)
texts = st.text("ab*?:$dxy", max_size=14)


def pieces_of(names):
    found = [FRAGMENTS[name] for name in names]
    return None if None in found else [piece for part in found for piece in part]


def model(pattern, text):
    at = piece = resume = 0
    star = None
    while at < len(text):
        current = pattern[piece] if piece < len(pattern) else None
        if current is Wild.ANY:
            star, resume = piece, at
            piece += 1
        elif current is Wild.ONE or current == text[at]:
            at, piece = at + 1, piece + 1
        elif star is not None:
            resume += 1
            at, piece = resume, star + 1
        else:
            return False
    return all(rest is Wild.ANY for rest in pattern[piece:])


@pytest.mark.fuzz
@given(fragments, texts)
def test_it_agrees_with_the_model(names, text):
    pattern = read_pattern("".join(names), CONTEXT, variables=True)
    expected = pieces_of(names)
    assert (pattern is None) == (expected is None)
    if pattern is not None and expected is not None:
        assert matches(pattern, text) is model(expected, text)


@pytest.mark.fuzz
@given(st.text("ab*?", max_size=16), st.text("ab?", max_size=60))
def test_so_it_does_without_variables(pattern, text):
    wild = {"*": Wild.ANY, "?": Wild.ONE}
    assert matches_text(pattern, text) is model([wild.get(c, c) for c in pattern], text)


@pytest.mark.fuzz
@given(fragments, st.text("ab*?:xy", max_size=20))
def test_arns_are_matched_part_by_part(names, text):
    pattern = read_pattern("".join(names), CONTEXT, variables=True)
    expected = pieces_of(names)
    if pattern is None or expected is None:
        return
    parts = [[]]
    for piece in expected:
        if piece == ":" and len(parts) < 6:
            parts.append([])
        else:
            parts[-1].append(piece)
    values = text.split(":", 5)
    found = len(parts) == len(values) == 6 and all(map(model, parts, values))
    like = OPERATORS["ArnLike"].like
    assert like is not None
    assert like(pattern, text) is found


@pytest.mark.fuzz
@given(fragments)
def test_a_literal_is_the_pattern_without_wildcards(names):
    expected = pieces_of(names)
    wild = {Wild.ANY: "*", Wild.ONE: "?"}
    text = None if expected is None else "".join(wild.get(piece, piece) for piece in expected)
    assert read_literal("".join(names), CONTEXT, variables=True) == text


@pytest.mark.parametrize("version_has_variables", [True, False])
def test_older_policies_have_no_variables(version_has_variables):
    found = read_pattern("${k}", CONTEXT, variables=version_has_variables)
    assert found is not None
    assert matches(found, "${k}") is not version_has_variables


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*a*" * 500 + "b", "a" * 2048, False),
        ("*?a" * 1000 + "*", "a" * 2048, True),
        ("*" + "?" * 2048, "a" * 2048, True),
        ("*" + "?" * 2049, "a" * 2048, False),
        ("a?" * 1024 + "*", "ab" * 1024, True),
        ("*é?ü*", "x" * 1000 + "éñü" + "x" * 1000, True),
        ("*?😀*", "a" * 70 + "😀", True),
        ("*aa*aa", "aaa", False),
        ("*aa*aa", "aaaa", True),
    ],
)
def test_long_ones(pattern, text, expected):
    assert matches_text(pattern, text) is expected
