"""The command blocks of a page of documentation."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"`([\w/-]+\.\w+)`")
_PROMPT = "$ "


@dataclass(frozen=True)
class Block:
    """A code block; `language` is the word behind its first fence.

    `file` is the last file name in the paragraph before it, if there is any.
    """

    language: str
    text: str
    line: int
    file: str | None = None

    @property
    def commands(self) -> list[tuple[str, str]]:
        """The commands of a session, `$ …`, each with the output that follows it."""
        parts = re.split(rf"^{re.escape(_PROMPT)}", self.text, flags=re.MULTILINE)
        assert parts[0] == "", "a session begins with a command"
        return [(part.split("\n")[0], part.partition("\n")[2].strip("\n")) for part in parts[1:]]


def blocks(page: Path) -> list[Block]:
    """Return all code blocks of a page, in its order."""
    text = page.read_text()
    found = [
        Block(match[2], re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE), line, name)
        for match in _BLOCK.finditer(text)
        for before in [text[: match.start()]]
        for line in [before.count("\n") + 1]
        for name in [_last_file_name(before.rstrip().rpartition("\n\n")[2])]
    ]
    assert text.count("```") == 2 * len(found), f"{page}: a fence that this function does not read"
    return found


def _last_file_name(paragraph: str) -> str | None:
    names = _FILE_NAME.findall(paragraph)
    return names[-1] if names else None


def code_spans(page: Path) -> Iterator[str]:
    """Yield each `code` in the running text and tables, on one line."""
    for match in re.finditer(r"`([^`]+)`", _BLOCK.sub("", page.read_text())):
        yield " ".join(match[1].replace("\\|", "|").split())
