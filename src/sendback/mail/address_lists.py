"""Read address fields of untrusted mail: From, To, Cc (RFC 5322 §3.4, §4.4). Pure.

Theory of operation. One pass over the text, without recursion or backtracking. The standard
library's reader recurses at each `(` and `:`, needs quadratic time for runs of `@`, and reads lists
differently from Python 3.12.6 on. This reader is as lenient as mail clients are, and in doubt
reports an address:

- a quote, a parenthesis or a square bracket that is never closed is an ordinary character;
- comments nest and are removed; the first one replaces a missing display name;
- the text in angle brackets is the address, whatever the display name is;
- without angle brackets each word with an `@` is an address; blanks around the `@` are ignored; so
  is each word with an `@` that follows an angle bracket;
- a group (`name: a, b;`) is read as its members, a source route (`<@a,@b:c@d>`) as its address.

A step costs some microseconds, and a field of an unauthenticated client may have 64 KB. So what is
repeated is read in one step, by a regular expression: entries of the usual forms, empty entries and
groups, words, and runs of one special character. A test compares the results with those of single
steps.

Encoded words are not decoded here. `encoded_words` decodes them afterwards, so that no encoded
comma or bracket becomes structure (RFC 2047 §5).
"""

import re
from dataclasses import dataclass, field, replace

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
# A run of characters without a special meaning.
_P = r'[^\s"(<>,;:\[\\@]++'
_PLAIN = re.compile(_P)
_MORE_WORDS = re.compile(rf"(?:\s++{_P})++")
# An entry without comments, quotes or groups: `a@b`, or words and `<a@b>`.
_SIMPLE = re.compile(rf"\s*+(?:({_P}@{_P})|((?:{_P}\s*+)*+)<({_P}@{_P})>)\s*+(?:,|\Z)")
_BARE = re.compile(rf"{_P}@{_P}")
_BARE_LIST = re.compile(rf"(?:\s*+{_P}@{_P}\s*+,)++")
# Between entries: what is empty, and the names of groups.
_NOTHING = re.compile(r'(?:[\s,;]++|[^"(<>,;:\[\\@]*+:)*+')
_ESCAPES = re.compile(r"(?:\\.)++", re.DOTALL)
_EMPTY_QUOTES = re.compile(r'(?:"")++')
_RUN = re.compile(r"(.)\1*+", re.DOTALL)
# An escape, a comment without others in it, or runs of parentheses.
_IN_COMMENTS = re.compile(r"\\.?|\([^()\\]*+\)|\(++|\)++", re.DOTALL)
_FEW_WORDS = 3
# An address as a display name, as some senders write it.
_NAMED_ADDRESS = re.compile(r'[^\s"()<>,;:\[\]\\@]+@[^\s"()<>,;:\[\]\\@]+')


@dataclass(frozen=True, slots=True)
class ListedAddress:
    """One entry: the unquoted display name and the address as written; either may be empty.

    The address has no comments and no blanks around its `@`. It is not validated: use
    `mail.address.parse_address`. `rest` is text that other readers may take for a part of the
    address, or for another one: what follows an address without angle brackets, or a malformed
    display name with an `@`.
    """

    name: str
    address: str
    rest: str = ""


def read_address_list(text: str) -> list[ListedAddress]:
    """Return the entries of an unfolded address field, in order; [] when there is none."""
    return _Reader(text).read()


def first_unclosed(text: str) -> int | None:
    """Return the position of the first quote or parenthesis that is never closed; None for none.

    Readers that are less lenient take all that follows it for a part of it.
    """
    reader = _Reader(text)
    reader.read()
    return reader.first_unclosed


@dataclass(slots=True)
class _Word:
    """A run without blanks, as written (`raw`) and without quotes (`plain`).

    `has_at`: it has an unquoted `@`.
    """

    raw: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    has_at: bool = False

    def add(self, raw: str, plain: str) -> None:
        self.raw.append(raw)
        self.plain.append(plain)

    def belongs_to(self, before: "_Word") -> bool:
        """Whether the blanks or comments between the two words are insignificant.

        They are around the `@` of an address and the dots of its domain (RFC 5322 §4.4).
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
    """The words of a phrase or of an angle bracket."""

    words: list[_Word] = field(default_factory=list)
    has_at: bool = False
    is_open: bool = False  # the next piece continues the last word

    def add(self, raw: str, plain: str) -> None:
        if not self.is_open:
            self.words.append(_Word())
            self.is_open = True
        self.words[-1].add(raw, plain)

    def add_at(self, count: int) -> None:
        """Add so many `@`; each is a piece of its own."""
        self.add("@", "@")
        word = self.words[-1]
        word.raw.extend("@" * (count - 1))
        word.plain.extend("@" * (count - 1))
        word.has_at = self.has_at = True

    def add_words(self, words: list[str]) -> None:
        """Add words without an `@`, the last of which is open.

        Those in the middle have no `@` beside them, so they are never joined: one word is enough.
        """
        if len(words) > _FEW_WORDS:
            words = [words[0], " ".join(words[1:-1]), words[-1]]
        for word in words:
            self.is_open = False
            self.add(word, word)

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
    """Reads one text. `_read_…` methods take a position and return the next one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: list[ListedAddress] = []
        # If a closing character is missing, later searches for it would fail too.
        self._quotes_close = True
        self._brackets_close = True
        self._comment_ends: dict[int, int] | None = None
        self._is_new = True  # nothing of the next entry is read
        self.first_unclosed: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._is_new = True
        self._phrase = _Words()
        self._angle: _Words | None = None
        self._behind = _Words()  # the angle bracket
        self._is_malformed = False
        self._in_angle = False
        self._comment = ""

    def read(self) -> list[ListedAddress]:
        text, position = self._text, 0
        while position < len(text):
            if self._is_new:
                position = self._read_simple(position)
                self._is_new = False
                continue
            match = _PLAIN.match(text, position)
            if match:
                self._current.add(match[0], match[0])
                position = match.end()
            else:
                position = self._read_special(position)
        self._end_entry()
        return self._found

    def _read_simple(self, position: int) -> int:
        """Read as many entries of the usual forms as there are, and what is between entries."""
        text = self._text
        while True:
            start = position
            if match := _NOTHING.match(text, position):
                position = match.end()
            if match := _BARE_LIST.match(text, position):
                self._found += [ListedAddress("", bare) for bare in _BARE.findall(match[0])]
                position = match.end()
            while match := _SIMPLE.match(text, position):
                address, name, in_angle = match.groups()
                self._add(" ".join((name or "").split()), address or in_angle)
                position = match.end()
            if position == start:
                return position

    def _run(self, position: int) -> int:
        """Return the end of the run of the character at the position."""
        match = _RUN.match(self._text, position)
        return match.end() if match else position

    @property
    def _current(self) -> _Words:
        if self._angle is None:
            return self._phrase
        return self._angle if self._in_angle else self._behind

    def _read_special(self, position: int) -> int:
        character = self._text[position]
        if character.isspace():
            if words := _MORE_WORDS.match(self._text, position):
                self._current.add_words(words[0].split())
                return words.end()
            self._current.is_open = False
            return position + 1
        reader = _SPECIALS.get(character)
        return self._read_ordinary(position) if reader is None else reader(self, position)

    def _read_ordinary(self, position: int, end: int | None = None) -> int:
        """Read a special character that is not where it has a meaning, up to `end`.

        Without `end`, read the whole run: adding the character changes nothing for the next one.
        """
        self._is_malformed = True
        end = self._run(position) if end is None else end
        run = self._text[position:end]
        self._current.add(run, run)
        return end

    def _read_unclosed(self, position: int, end: int | None = None) -> int:
        if self.first_unclosed is None:
            self.first_unclosed = position
        return self._read_ordinary(position, end)

    def _read_at(self, position: int) -> int:
        end = self._run(position)
        self._current.add_at(end - position)
        return end

    def _read_escape(self, position: int) -> int:
        self._is_malformed = True
        match = _ESCAPES.match(self._text, position)
        raw = match[0] if match else self._text[position:]  # a backslash at the end
        self._current.add(raw, _ESCAPED.sub(r"\1", raw) if match else "")
        return position + len(raw)

    def _read_quoted(self, position: int) -> int:
        end = self._closing_quote(position) if self._quotes_close else -1
        if end < 0:
            self._quotes_close = False
            return self._read_unclosed(position)
        if end == position + 1 and (empty := _EMPTY_QUOTES.match(self._text, position)):
            self._current.add(empty[0], "")
            return empty.end()
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
        ends = self._comment_ends
        end = ends.get(position)
        if end is None:
            last = next((n for n in range(position, self._run(position)) if n in ends), None)
            return self._read_unclosed(position, last)
        self._current.is_open = False
        self._comment = self._comment or _ESCAPED.sub(r"\1", self._text[position + 1 : end])
        return end + 1

    def _read_literal(self, position: int) -> int:
        """Read an address literal as one piece, colons included (RFC 5321 §4.1.3)."""
        is_literal = self._current.ends_with_at
        end = self._text.find("]", position) if is_literal and self._brackets_close else -1
        if end < 0:
            self._brackets_close = self._brackets_close and not is_literal
            return self._read_ordinary(position)
        raw = self._text[position : end + 1]
        self._current.add(raw, raw)
        return end + 1

    def _read_opening(self, position: int) -> int:
        """Begin an angle bracket; if this entry already has an address, begin a new entry."""
        if self._angle is not None and self._angle.has_at:
            self._end_entry()
        end = self._run(position)
        self._is_malformed = self._is_malformed or self._angle is not None or end > position + 1
        self._angle, self._in_angle, self._is_new = _Words(), True, False
        return end

    def _read_closing(self, position: int) -> int:
        """End the angle bracket; without one, ignore the character."""
        end = self._run(position)
        self._is_malformed = self._is_malformed or not self._in_angle or end > position + 1
        self._in_angle = False
        return end

    def _read_comma(self, position: int) -> int:
        if self._in_angle and self._is_route():
            return self._read_ordinary(position)
        self._end_entry()
        return position + 1

    def _read_semicolon(self, position: int) -> int:
        """End a group or an address; in a display name the character is ordinary."""
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
            self._begin()  # the phrase was the name of a group
            return position + 1
        return self._read_ordinary(position)

    def _is_route(self) -> bool:
        """Whether the angle bracket begins with a source route (RFC 5321 appendix C)."""
        return self._angle is not None and self._angle.begins_with_at

    def _end_entry(self) -> None:
        angle, behind, comment = self._angle, self._behind, self._comment.strip()
        is_malformed = self._is_malformed
        phrase = _Words(self._phrase.words + behind.words).joined()
        if angle is not None and angle.has_at and behind.has_at:
            phrase = self._phrase.joined()
        self._begin()
        if angle is not None and (angle.has_at or not _has_at(phrase)):
            address = " ".join("".join(word.raw) for word in angle.joined())
            name = _text(phrase)
            is_malformed = is_malformed or not all(map(_is_named_address, phrase))
            self._add(name or comment, address, name if is_malformed and _has_at(phrase) else "")
            if behind.has_at:
                self._add_bare(behind.joined(), "")
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

    def _add(self, name: str, address: str, rest: str = "") -> None:
        if name or address:
            self._found.append(ListedAddress(name, address, rest))


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


def _is_named_address(word: _Word) -> bool:
    return not word.has_at or _NAMED_ADDRESS.fullmatch("".join(word.raw)) is not None


def _has_at(words: list[_Word]) -> bool:
    return any(word.has_at for word in words)


def _text(words: list[_Word]) -> str:
    return " ".join("".join(word.plain) for word in words).strip()


def _backslashes_before(text: str, position: int, start: int) -> int:
    """Return how many backslashes directly precede `position`, from `start` on."""
    first = position
    while first > start and text[first - 1] == "\\":
        first -= 1
    return position - first


def _comment_ends(text: str, start: int) -> dict[int, int]:
    """Return the end of each comment that begins at or after `start` (nested, RFC 5322 §3.2.2)."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for match in _IN_COMMENTS.finditer(text, start):
        first, found = match.start(), match[0]
        if found[0] == "(" and found[-1] == ")":
            ends[first] = match.end() - 1
        elif found[0] == "(":
            opened.extend(range(first, match.end()))
        elif found[0] == ")":
            for position in range(first, min(match.end(), first + len(opened))):
                ends[opened.pop()] = position
    return ends
