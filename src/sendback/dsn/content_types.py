"""Parse Content-Type and its parameters from any producer, in linear time and with limits.

Supported are comments (RFC 2045 §5.1), quoted strings, parameters in pieces and with a charset
(RFC 2231), and common mistakes: a quote that is not closed, blanks around `=` and `/`, values
with characters that would need quotes. Octets are read as Latin-1, so that a boundary is compared
octet for octet.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# More is not read: a boundary has 70 characters (RFC 2046 §5.1.1), a charset 40 (RFC 2978 §2.3).
MAX_OCTETS = 16 * 1024
MAX_PARAMETERS = 100

_BLANK = re.compile(r"[\s\x00]*+", re.ASCII)
_TYPE_TOKEN = re.compile(r"[^\s/;(]*+", re.ASCII)
_NAME = re.compile(r"[^\s;=(]*+", re.ASCII)
_VALUE = re.compile(r"[^\s;]*+", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL = re.compile(r'[("]')
_COMMENT_TEXT = re.compile(r"[^()\\]*+")
_REST_OF_PARAMETER = re.compile(r"[^;]*+")
# RFC 2231 §3 and §4: name, number of the piece, mark of an encoded value.
_EXTENDED = re.compile(r"([^*]+)(?:\*([0-9]{1,3}))?(\*)?", re.ASCII)
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class ContentType:
    """`type/subtype` in lower case, empty when there is none, and the parameters.

    Of parameters with one name the first counts. `parameters` are by name in lower case.
    """

    media_type: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_content_type(value: bytes) -> ContentType:
    """Return the parsed value of a Content-Type field; never raises."""
    text = value[:MAX_OCTETS].decode("latin-1")
    position = _skip_blanks(text, 0)
    main = _TYPE_TOKEN.match(text, position)
    position = _skip_blanks(text, _end(main, position))
    media_type = main[0] if main else ""
    if text[position : position + 1] == "/":
        position = _skip_blanks(text, position + 1)
        sub = _TYPE_TOKEN.match(text, position)
        media_type += f"/{sub[0] if sub else ''}"
        position = _end(sub, position)
    return ContentType(media_type.lower(), _joined(_parameters(text, position)))


def without_comments(text: str) -> str:
    """Return the text without its comments, nested ones too (RFC 5322 §3.2.2), stripped.

    Parentheses in quoted strings are text. An unclosed comment extends to the end; an unclosed
    quote is an ordinary character.
    """
    kept = []
    position = 0
    quotes_close = True
    while (special := _SPECIAL.search(text, position)) is not None:
        kept.append(text[position : special.start()])
        position = special.start()
        if special[0] == "(":
            position = _after_comment(text, position)
            continue
        quoted = _QUOTED.match(text, position) if quotes_close else None
        quotes_close = quoted is not None
        kept.append(quoted[0] if quoted else special[0])
        position += len(kept[-1])
    kept.append(text[position:])
    return "".join(kept).strip()


def _parameters(text: str, position: int) -> Iterator[tuple[str, str]]:
    """Yield names in lower case and values, as they follow."""
    for _ in range(MAX_PARAMETERS):
        position = _skip_to_parameter(text, position)
        if position >= len(text):
            return
        name = _NAME.match(text, position)
        position = _skip_blanks(text, _end(name, position))
        if text[position : position + 1] != "=":
            position = _end(_REST_OF_PARAMETER.match(text, position), position)
            continue
        position = _skip_blanks(text, position + 1)
        value, position = _value(text, position)
        if name and name[0]:
            yield name[0].lower(), value


def _value(text: str, position: int) -> tuple[str, int]:
    """Return a value and where it ends. A quote that is not closed counts as none."""
    quoted = _QUOTED.match(text, position)
    if quoted:
        return _ESCAPE.sub(r"\1", quoted[1]), quoted.end()
    if text[position : position + 1] == '"':
        position += 1
    plain = _VALUE.match(text, position)
    return (plain[0] if plain else ""), _end(plain, position)


def _joined(pairs: Iterator[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters with the pieces of RFC 2231 §3 joined and §4 decoded."""
    found: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    for name, value in pairs:
        match = _EXTENDED.fullmatch(name)
        if match is None or not (match[2] or match[3]):
            found.setdefault(name, value)
            continue
        own = pieces.setdefault(match[1], {})
        own.setdefault(int(match[2] or 0), (value, bool(match[3])))
    for name, own in pieces.items():
        found.setdefault(name, _assembled(own))
    return found


def _assembled(pieces: Mapping[int, tuple[str, bool]]) -> str:
    """Return the pieces 0, 1, … up to the first that is missing, as one value."""
    texts = []
    for number in range(len(pieces)):
        if number not in pieces:
            break
        value, is_encoded = pieces[number]
        if is_encoded and number == 0 and value.count("'") > 1:
            value = value.split("'", 2)[2]  # charset'language'value
        if is_encoded:
            value = _PERCENT.sub(lambda match: chr(int(match[1], 16)), value)
        texts.append(value)
    return "".join(texts)


def _skip_to_parameter(text: str, position: int) -> int:
    """Return where the next parameter begins: behind blanks, comments and semicolons."""
    while True:
        position = _skip_blanks(text, position)
        if text[position : position + 1] not in {";", '"'}:
            return position
        position += 1


def _skip_blanks(text: str, position: int) -> int:
    """Return the position behind white space and comments."""
    while True:
        position = _end(_BLANK.match(text, position), position)
        if text[position : position + 1] != "(":
            return position
        position = _after_comment(text, position)


def _after_comment(text: str, position: int) -> int:
    """Return the position behind the comment that begins here."""
    depth = 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2
            continue
        depth += (character == "(") - (character == ")")
        position += 1
        if depth == 0:
            break
        position = _end(_COMMENT_TEXT.match(text, position), position)
    return min(position, len(text))


def _end(match: re.Match[str] | None, position: int) -> int:
    return match.end() if match else position
