"""Read lists of addresses that may hold anything: From, To, Cc (RFC 5322 §3.4, §4.4). Pure.

Theory of operation. One pass over the text, without recursion and without going back; the standard
library's reader recurses at each `(` and `:`, needs quadratic time for runs of `@`, and reads lists
differently from Python 3.12.6 on. The reader is as lenient as mail clients are, and errs on the
side of finding an address:

- a quote, a parenthesis or a square bracket that is never closed is an ordinary character;
- comments nest and are left out; one stands in for a display name that is missing;
- what stands in angle brackets is the address, whatever the display name looks like;
- without angle brackets each word with an `@` is an address, blanks around the `@` not counting;
- a group (`name: a, b;`) is its members; a source route (`<@a,@b:c@d>`) is its last address.

Encoded words are left as they stand: `encoded_words` decodes them, behind this reader, so that no
encoded comma or bracket becomes structure (RFC 2047 §5).
"""

import re
from dataclasses import dataclass, field, replace

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
# Characters that mean something outside quotes and comments, or blanks.
_PLAIN = re.compile(r'[^\s"(<>,;:\[\\@]+')


@dataclass(frozen=True, slots=True)
class ListedAddress:
    """One entry: the display name, unquoted, and the address as written, both perhaps empty.

    The address has no comments and no blanks around its `@`. It may be anything: only
    `mail.address.parse_address` knows whether it is valid. `rest` is what stood behind an address
    without angle brackets and belongs to nothing: other readers may take it for a part of it.
    """

    name: str
    address: str
    rest: str = ""


def read_address_list(text: str) -> list[ListedAddress]:
    """Return the entries of an unfolded address field, in order; [] when there is none."""
    return _Reader(text).read()


@dataclass(slots=True)
class _Word:
    """A run without blanks: as written, and without quotes; whether an unquoted `@` is in it."""

    raw: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    has_at: bool = False

    def add(self, raw: str, plain: str) -> None:
        self.raw.append(raw)
        self.plain.append(plain)

    def belongs_to(self, before: "_Word") -> bool:
        """Whether only blanks or comments that mean nothing stand between the two.

        RFC 5322 §4.4: around the `@` of an address and the dots of its domain.
        """
        if before.raw[-1] == "@" or self.raw[0] == "@":
            return True
        return before.has_at and (before.raw[-1].endswith(".") or self.raw[0].startswith("."))

    def join(self, other: "_Word") -> None:
        self.raw += other.raw
        self.plain += other.plain
        self.has_at = self.has_at or other.has_at


@dataclass(slots=True)
class _Words:
    """The words of a phrase or of what stands in angle brackets."""

    words: list[_Word] = field(default_factory=list)
    has_at: bool = False
    is_open: bool = False  # whether what comes next belongs to the last word

    def add(self, raw: str, plain: str) -> None:
        if not self.is_open:
            self.words.append(_Word())
            self.is_open = True
        self.words[-1].add(raw, plain)

    def add_at(self) -> None:
        self.add("@", "@")
        self.words[-1].has_at = self.has_at = True

    @property
    def begins_with_at(self) -> bool:
        return bool(self.words) and self.words[0].raw[0] == "@"

    @property
    def ends_with_at(self) -> bool:
        return bool(self.words) and self.words[-1].raw[-1] == "@"

    def joined(self) -> list[_Word]:
        found: list[_Word] = []
        for word in self.words:
            if found and word.belongs_to(found[-1]):
                found[-1].join(word)
            else:
                found.append(word)
        return found


class _Reader:
    """Reads one text. `_read_…` methods are given a position and return the next one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: list[ListedAddress] = []
        # Once a closing character is not found, it will not be found further on either.
        self._quotes_close = True
        self._brackets_close = True
        self._comment_ends: dict[int, int] | None = None
        self._begin()

    def _begin(self) -> None:
        self._phrase = _Words()
        self._angle: _Words | None = None
        self._in_angle = False
        self._comment = ""

    def read(self) -> list[ListedAddress]:
        text, position = self._text, 0
        while position < len(text):
            match = _PLAIN.match(text, position)
            if match:
                self._current.add(match[0], match[0])
                position = match.end()
            else:
                position = self._read_special(position)
        self._end_entry()
        return self._found

    @property
    def _current(self) -> _Words:
        return self._angle if self._in_angle and self._angle is not None else self._phrase

    def _read_special(self, position: int) -> int:
        character = self._text[position]
        if character.isspace():
            self._current.is_open = False
            return position + 1
        reader = _SPECIALS.get(character)
        return self._read_ordinary(position) if reader is None else reader(self, position)

    def _read_ordinary(self, position: int) -> int:
        self._current.add(self._text[position], self._text[position])
        return position + 1

    def _read_at(self, position: int) -> int:
        self._current.add_at()
        return position + 1

    def _read_escape(self, position: int) -> int:
        raw = self._text[position : position + 2]
        self._current.add(raw, raw[1:])
        return position + 2

    def _read_quoted(self, position: int) -> int:
        end = self._closing_quote(position) if self._quotes_close else -1
        if end < 0:
            self._quotes_close = False
            return self._read_ordinary(position)
        raw = self._text[position : end + 1]
        self._current.add(raw, _ESCAPED.sub(r"\1", raw[1:-1]))
        return end + 1

    def _closing_quote(self, position: int) -> int:
        text, at = self._text, position + 1
        while True:
            quote = text.find('"', at)
            if quote < 0:
                return -1
            backslashes = _backslashes_before(text, quote, at)
            if backslashes % 2 == 0:
                return quote
            at = quote + 1

    def _read_comment(self, position: int) -> int:
        if self._comment_ends is None:
            self._comment_ends = _comment_ends(self._text, position)
        end = self._comment_ends.get(position)
        if end is None:
            return self._read_ordinary(position)
        self._current.is_open = False
        self._comment = self._comment or _ESCAPED.sub(r"\1", self._text[position + 1 : end])
        return end + 1

    def _read_literal(self, position: int) -> int:
        """An address literal is one piece, colons included (RFC 5321 §4.1.3)."""
        is_literal = self._current.ends_with_at
        end = self._text.find("]", position) if is_literal and self._brackets_close else -1
        if end < 0:
            self._brackets_close = self._brackets_close and not is_literal
            return self._read_ordinary(position)
        raw = self._text[position : end + 1]
        self._current.add(raw, raw)
        return end + 1

    def _read_opening(self, position: int) -> int:
        """Behind an address in angle brackets, closed or not, another entry begins."""
        if self._angle is not None and self._angle.has_at:
            self._end_entry()
        self._angle, self._in_angle = _Words(), True
        return position + 1

    def _read_closing(self, position: int) -> int:
        """One that closes nothing means nothing."""
        self._in_angle = False
        return position + 1

    def _read_comma(self, position: int) -> int:
        if self._in_angle and self._is_route():
            return self._read_ordinary(position)
        self._end_entry()
        return position + 1

    def _read_semicolon(self, position: int) -> int:
        """Ends a group, and for some clients an address; in a display name it is a character."""
        if self._phrase.words and self._angle is None and not self._phrase.has_at:
            return self._read_ordinary(position)
        self._end_entry()
        return position + 1

    def _read_colon(self, position: int) -> int:
        if self._in_angle and self._angle is not None:
            if self._is_route():
                self._angle = _Words()
                return position + 1
            return self._read_ordinary(position)
        if self._angle is None and not self._phrase.has_at:
            self._begin()  # what came before is the name of a group
            return position + 1
        return self._read_ordinary(position)

    def _is_route(self) -> bool:
        """Whether the angle bracket holds a source route so far (RFC 5321 appendix C)."""
        return self._angle is not None and self._angle.begins_with_at

    def _end_entry(self) -> None:
        phrase, angle, comment = self._phrase.joined(), self._angle, self._comment.strip()
        self._begin()
        if angle is not None and (angle.has_at or not _has_at(phrase)):
            address = " ".join("".join(word.raw) for word in angle.joined())
            self._add(_text(phrase) or comment, address)
        elif _has_at(phrase):
            self._add_bare(phrase, comment)
        else:
            self._add("", _text(phrase))

    def _add_bare(self, phrase: list[_Word], comment: str) -> None:
        name: list[_Word] = []
        last = max(number for number, word in enumerate(phrase) if word.has_at)
        phrase, rest = phrase[: last + 1], phrase[last + 1 :]
        for word in phrase:
            if word.has_at:
                self._add(_text(name) or comment, "".join(word.raw))
                name, comment = [], ""
            else:
                name.append(word)
        self._found[-1] = replace(self._found[-1], rest=_text(rest))

    def _add(self, name: str, address: str) -> None:
        if name or address:
            self._found.append(ListedAddress(name, address))


_SPECIALS = {
    "@": _Reader._read_at,  # noqa: SLF001 - its own table
    "\\": _Reader._read_escape,  # noqa: SLF001
    '"': _Reader._read_quoted,  # noqa: SLF001
    "(": _Reader._read_comment,  # noqa: SLF001
    "[": _Reader._read_literal,  # noqa: SLF001
    "<": _Reader._read_opening,  # noqa: SLF001
    ">": _Reader._read_closing,  # noqa: SLF001
    ",": _Reader._read_comma,  # noqa: SLF001
    ";": _Reader._read_semicolon,  # noqa: SLF001
    ":": _Reader._read_colon,  # noqa: SLF001
}


def _has_at(words: list[_Word]) -> bool:
    return any(word.has_at for word in words)


def _text(words: list[_Word]) -> str:
    return " ".join("".join(word.plain) for word in words).strip()


def _backslashes_before(text: str, position: int, start: int) -> int:
    """How many backslashes stand directly before the position, not counting those before start."""
    first = position
    while first > start and text[first - 1] == "\\":
        first -= 1
    return position - first


def _comment_ends(text: str, start: int) -> dict[int, int]:
    """Where each comment that begins at or behind `start` ends; comments nest (RFC 5322 §3.2.2)."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "(":
            opened.append(position)
        elif character == ")" and opened:
            ends[opened.pop()] = position
        position += 1
    return ends
