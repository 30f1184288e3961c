"""The layout of tables, from wide to narrow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.cli.tables import Column, Kind, cut, display_width, layout

pytestmark = pytest.mark.sqlite("it uses no database")

IDS = (
    "010001a2108b2ee1-568801c7-9105-4281-8248-30c2e6efa486-000000",
    "010001a2108b2ee1-77aa01c7-1111-4281-8248-30c2e6efa486-000000",
)
DATES = ("2026-11-26 15:11:33", "2026-11-25 03:59:59")
LONG = ("somebody.with.a.long.name+tag@department.of.a.company.example", "bob@example.com")


def table(*, ids=IDS, texts=LONG):
    return [
        Column("created at", Kind.DATE, DATES, 0),
        Column("message id", Kind.ID, ids, 1),
        Column("recipient", Kind.TEXT, texts, 2),
        Column("attempts", Kind.NUMBER, ("1", "12"), 10),
        Column("last reply", Kind.TEXT, ("550 5.1.1 there is no mailbox of this name", ""), 9),
    ]


def test_a_wide_terminal_shows_everything():
    lines = layout(table(), 200)
    assert lines[0].split() == [
        "created",
        "at",
        "message",
        "id",
        "recipient",
        "attempts",
        "last",
        "reply",
    ]
    assert lines[2].startswith(f"{DATES[0]}  {IDS[0]}  {LONG[0]}         1  550 5.1.1")
    assert len(lines) == 4


def test_dates_are_shortened_before_ids_and_ids_before_texts():
    text = "\n".join(layout(table(), 195))
    assert "11-26 15:11  " in text
    assert IDS[0] in text
    assert LONG[0] in text
    text = "\n".join(layout(table(), 150))
    assert "010001a2108b2ee1-5…" in text
    assert "010001a2108b2ee1-7…" in text
    assert LONG[0] in text


def test_columns_are_left_out_in_their_order_and_named():
    lines = layout(table(), 78)
    assert lines[0].split() == ["created", "at", "message", "id", "recipient", "last", "reply"]
    assert lines[-1] == "Not shown, as the terminal is narrow: attempts."
    lines = layout(table(), 56)
    assert lines[0].split() == ["created", "at", "message", "id", "recipient"]
    assert "last reply" in " ".join(lines[-2:])


def test_ids_are_distinct_afterwards_and_equal_ones_stay_equal():
    ids = ("aaaaaaaaaaaaaaaaaaaa1xxxxxxxxxxxx", "aaaaaaaaaaaaaaaaaaaa2xxxxxxxxxxxx")
    text = "\n".join(layout(table(ids=ids), 90))
    assert "aaaaaaaaaaaaaaaaaaaa1…" in text
    assert "aaaaaaaaaaaaaaaaaaaa2…" in text
    text = "\n".join(layout(table(ids=(IDS[0], IDS[0])), 90))
    assert text.count("010001a2108b…") == 2


def test_wide_characters_have_two_cells():
    assert display_width("日本語") == 6
    assert display_width("e\u0301") == 1
    assert cut("日本語の長い名前", 7) == "日本語…"
    lines = layout(table(texts=("日本語" * 20, "bob@example.com")), 80)
    assert max(map(display_width, lines)) <= 80


_cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
_columns = st.lists(
    st.tuples(st.sampled_from([Kind.TEXT, Kind.ID, Kind.NUMBER]), _cells, _cells, _cells),
    min_size=1,
    max_size=8,
)


@given(_columns, st.integers(40, 300))
def test_no_line_is_wider_than_the_terminal_unless_one_column_alone_is(given_columns, width):
    columns = [
        Column(f"c{number}", kind, cells, number)
        for number, (kind, *cells) in enumerate(given_columns)
    ]
    lines = layout([Column(c.title, c.kind, tuple(c.cells), c.rank) for c in columns], width)
    titles = lines[0].split()
    assert titles[0] == "c0"
    if len(titles) > 1:
        assert max(map(display_width, lines)) <= width
    assert len(lines) >= 5
