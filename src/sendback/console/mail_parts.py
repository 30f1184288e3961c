"""The content of a mail as it is shown: its parts, its text, its HTML made harmless.

A mail may be anything. What is read has a bound, and these functions run in a thread.
"""

import re
from dataclasses import dataclass

from sendback.dsn.mime import Part, TooComplexError, read_message
from sendback.mail.charsets import decode_charset

MAX_READ = 8 * 2**20
_MAX_TEXT = 200_000  # characters
_MAX_HTML = 1_000_000
_MAX_PARTS = 300
_MAX_NAME = 150
_NAME = re.compile(r"[^\w .()+-]+")
_EXTERNAL = frozenset({"src", "background", "poster", "srcset", "cite", "longdesc", "data"})
_STYLE_URL = re.compile(r"url\s*\(|@import|expression|image-set|\\", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ShownPart:
    """A part of a mail; `number` is its position, `depth` how deep it is nested."""

    number: int
    depth: int
    media_type: str
    name: str
    size: int
    is_leaf: bool


@dataclass(frozen=True, slots=True)
class ShownMail:
    """What can be shown of a mail.

    `text` and `html` are None where it has none. `problem` says what could not be read.
    """

    parts: tuple[ShownPart, ...] = ()
    text: str | None = None
    html: str | None = None
    is_cut: bool = False
    problem: str = ""


def read_mail(content: bytes, *, is_cut: bool) -> ShownMail:
    """Return the parts of a mail, of which `content` may be the beginning alone."""
    try:
        whole = read_message(content)
    except TooComplexError as error:
        return ShownMail(problem=f"The parts are not shown: {error}.", is_cut=is_cut)
    shown = [_shown(number, depth, part) for number, (depth, part) in enumerate(_walk(whole))]
    text, html = _first(whole, "text/plain"), _first(whole, "text/html")
    problem = f"Only the first {_MAX_PARTS} parts are listed." if len(shown) > _MAX_PARTS else ""
    return ShownMail(
        tuple(shown[:_MAX_PARTS]),
        None if text is None else _text_of(text)[:_MAX_TEXT],
        None if html is None else _text_of(html)[:_MAX_HTML],
        is_cut,
        problem,
    )


def part_content(content: bytes, number: int) -> tuple[str, bytes] | None:
    """Return the file name and the decoded octets of a part, or None."""
    try:
        whole = read_message(content)
    except TooComplexError:
        return None
    for position, (_, part) in enumerate(_walk(whole)):
        if position == number:
            return file_name(part) or f"part-{number}.bin", part.decoded()
    return None


def harmless(html: str) -> tuple[str, int]:
    """Return HTML without scripts, forms and references to other servers, and how many it had."""
    import nh3  # noqa: PLC0415 - only for mail in HTML

    blocked = 0

    def keep(tag: str, attribute: str, value: str) -> str | None:
        nonlocal blocked
        if attribute in _EXTERNAL and not (tag == "img" and value.startswith("data:image/")):
            blocked += 1
            return None
        if attribute == "href":
            return None
        if attribute == "style" and _STYLE_URL.search(value):
            blocked += 1
            return None
        return value

    attributes = {name: set(values) for name, values in nh3.ALLOWED_ATTRIBUTES.items()}
    attributes["*"] = {
        "style",
        "dir",
        "lang",
        "title",
        "align",
        "valign",
        "bgcolor",
        "width",
        "height",
    }
    attributes["*"] |= {
        "background",
        "color",
        "face",
        "size",
        "border",
        "cellpadding",
        "cellspacing",
    }
    cleaned = nh3.clean(
        html,
        tags=set(nh3.ALLOWED_TAGS) | {"font", "center"},
        attributes=attributes,
        attribute_filter=keep,
        url_schemes={"data", "http", "https", "cid", "ftp"},
        link_rel=None,
    )
    return cleaned, blocked


def file_name(part: Part) -> str:
    """Return a harmless file name for a part, or an empty text."""
    disposition = next(
        (value for name, value in part.header if name.lower() == "content-disposition"), ""
    )
    match = re.search(r'filename="?([^";\r\n]{1,300})', disposition, re.IGNORECASE)
    given = match[1] if match else part.parameters.get("name", "")
    base = given.replace("\\", "/").rpartition("/")[2]
    return _NAME.sub("_", base).strip(". ")[:_MAX_NAME]


def _walk(part: Part, depth: int = 0) -> list[tuple[int, Part]]:
    found: list[tuple[int, Part]] = []
    waiting = [(depth, part)]
    while waiting:
        level, item = waiting.pop()
        found.append((level, item))
        waiting += [(level + 1, child) for child in reversed(item.children)]
    return found


def _shown(number: int, depth: int, part: Part) -> ShownPart:
    media_type = part.media_type or "text/plain"
    return ShownPart(
        number, depth, media_type, file_name(part), part.end - part.start, not part.children
    )


def _first(whole: Part, media_type: str) -> Part | None:
    for leaf in whole.leaves():
        is_attached = any(
            name.lower() == "content-disposition" and value.lower().startswith("attachment")
            for name, value in leaf.header
        )
        if (leaf.media_type or "text/plain") == media_type and not is_attached:
            return leaf
    return None


def _text_of(part: Part) -> str:
    octets = part.decoded()[: 4 * _MAX_HTML]
    found = decode_charset(octets, part.parameters.get("charset", "us-ascii"))
    text = found if found is not None else octets.decode("utf-8", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")
