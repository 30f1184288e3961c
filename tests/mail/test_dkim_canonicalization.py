"""Bodies in canonical form: alike however they are cut, as another implementation has them."""

import hashlib
import itertools

import dkim.canonicalization
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.dkim_canonicalization import RelaxedBody, SimpleBody, relaxed_body, relaxed_field
from tests.partners.steps import assert_linear, steps

MEGABYTE = 2**20


def canonical(kind, *chunks):
    form = kind()
    found = [piece for chunk in chunks for piece in form.feed(chunk)]
    return b"".join([*found, *form.finish()])


@pytest.mark.parametrize(
    ("body", "simple", "relaxed"),
    [
        (b"", b"\r\n", b""),
        (b"\r\n", b"\r\n", b""),
        (b"\r\n\r\n\r\n", b"\r\n", b""),
        (b" \r\n\t\r\n", b" \r\n\t\r\n", b""),
        (b"a", b"a\r\n", b"a\r\n"),
        (b"a ", b"a \r\n", b"a\r\n"),
        (b"a\r\n", b"a\r\n", b"a\r\n"),
        (b"a\r\n\r\n", b"a\r\n", b"a\r\n"),
        (b"a\r\n \t \r\n", b"a\r\n \t \r\n", b"a\r\n"),
        (b" a \t b \r\n", b" a \t b \r\n", b" a b\r\n"),
        (b"\r\n\r\na\r\n", b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
        (b"a\r", b"a\r\r\n", b"a\r\r\n"),
        (b"a\r\n\n", b"a\r\n\n\r\n", b"a\r\n\n\r\n"),
        (b"a \rb \nc", b"a \rb \nc\r\n", b"a \rb \nc\r\n"),
    ],
)
def test_canonical_bodies(body, simple, relaxed):
    """RFC 6376 §3.4.3, §3.4.4."""
    assert canonical(SimpleBody, body) == simple
    assert canonical(RelaxedBody, body) == relaxed
    assert relaxed_body(body) == relaxed


def test_the_standards_example():
    """RFC 6376 §3.4.5."""
    body = b" C \r\nD \t E\r\n\r\n\r\n"
    assert canonical(SimpleBody, body) == b" C \r\nD \t E\r\n"
    assert canonical(RelaxedBody, body) == b" C\r\nD E\r\n"
    assert relaxed_field(b"A", b"A: X\r\n") == b"a:X\r\n"
    assert relaxed_field(b"B ", b"B : Y\t\r\n\tZ  \r\n") == b"b :Y Z\r\n"


_OCTETS = st.lists(
    st.sampled_from([b"a", b" ", b"  ", b"\t", b"\r\n", b"\r\n\r\n", b" \r\n", b"\r", b"\n", b"."]),
    max_size=24,
).map(b"".join)


@pytest.mark.parametrize("kind", [SimpleBody, RelaxedBody])
@given(body=_OCTETS, cuts=st.lists(st.integers(0, 40), max_size=6))
def test_the_cuts_change_nothing(kind, body, cuts):
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(edges)]
    assert canonical(kind, *pieces) == canonical(kind, body)
    assert canonical(kind, *(body[i : i + 1] for i in range(len(body)))) == canonical(kind, body)


_LINES = st.lists(st.text("ab \t.", max_size=12), max_size=6).map(
    lambda lines: "".join(line + "\r\n" for line in lines).encode()
)


@given(_LINES)
def test_another_implementation_agrees(body):
    theirs = dkim.canonicalization
    assert canonical(SimpleBody, body) == theirs.Simple.canonicalize_body(body)
    assert canonical(RelaxedBody, body) == theirs.Relaxed.canonicalize_body(body)


SHAPES = [
    b" ", b"\t", b"\r\n", b"\r", b"\n", b" \r\n", b"a  ", b" \t", b" \r", b"\r\r\n", b".\r\n",
    b"x" * 70 + b"\r\n", b" " * 5000 + b"a",
]  # fmt: skip


@pytest.mark.parametrize("kind", [SimpleBody, RelaxedBody])
@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_the_work_is_linear(kind, shape):
    """Each call works on 64 KiB at most, so that calls are what counts."""

    def work(size):
        whole = shape * (size // len(shape))
        form, digest = kind(), hashlib.sha256()
        for piece in form.feed(whole):
            digest.update(piece)
        for piece in form.finish():
            digest.update(piece)

    assert_linear(work, 4 * MEGABYTE)
    # A piece of 64 KiB takes 16 passes at most, for which the longest run of blanks is halved.
    assert steps(lambda: work(4 * MEGABYTE)) < 64 * 100


@pytest.mark.parametrize("kind", [SimpleBody, RelaxedBody])
def test_what_is_held_back_does_not_grow(kind):
    """Of 40 MB of empty lines a number is kept; no piece that comes out is large."""
    form = kind()
    for _ in range(640):
        assert not list(form.feed(b"\r\n" * 32768))
    pieces = list(form.feed(b"x"))
    assert sum(map(len, pieces)) == 640 * 65536 + 1
    assert max(map(len, pieces)) <= 65536
