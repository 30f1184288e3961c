"""Report phrases in comments, docstrings and documentation that have a plainer form.

A line that quotes another text (SES, an RFC) is left out by the word `quoted:` in it, in a comment.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ADVICE = {
    r"(gives?|given|giving) up": "stop retrying, fail; noun: the end of the retries",
    r"in hand": "in progress",
    r"(nobody|anyone|anybody|everybody|a stranger)'s": "unknown; from any client; shared",
    r"told of": "reported, recorded; noun: the status",
    r"(what|whatever) (has )?(came|comes|become|becomes|became) of|come of it": "the result, state",
    r"whose turn|takes? (its|their) turn": "the next one; acquires the slot",
    r"lets? go": "release",
    r"puts? back": "requeue, restore",
    r"(has|have|had|is|there is) (no )?room for": "has capacity for",
    r"to see to": "to handle",
    r"hangs? on|hung on": "depend on",
    r"the same, (but|for|as)": "name what differs, and why",
    r"(may|can|to) be had": "is available",
    r"stands? (in|on) (a|the|its)": "is in, is on",
    r"held against": "compared with, checked against",
    r"judge[ds]?|judging": "check, verify, evaluate",
    r"steer(s|ed|ing)?": "control, manage",
    r"knows (no|nothing of|nothing about)": "has no; does not depend on",
    r"left alone": "paused, unchanged",
    r"in chance order": "in random order",
    r"peer's words": "the server's reply",
    r"gets? by": "bypass, avoid",
    r"is believed|are believed": "is trusted",
}
_PATTERNS = [
    (re.compile(r"\b(?:" + text.replace(" ", r"\s+") + r")\b", re.IGNORECASE), advice)
    for text, advice in ADVICE.items()
]
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each comment and docstring, or a Markdown file without its code, with its line."""
    source = path.read_text()
    if path.suffix == ".md":
        yield 1, _CODE.sub(lambda code: "\n" * code[0].count("\n"), source)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            text = node.body[0]
            yield text.lineno, ast.get_source_segment(source, text) or ""


def findings(path: Path) -> list[str]:
    """Return `file:line: phrase: advice`, ordered by line."""
    found = []
    for first, text in prose(path):
        lines = text.split("\n")
        for pattern, advice in _PATTERNS:
            for match in pattern.finditer(text):
                number = text.count("\n", 0, match.start())
                if "quoted:" not in lines[number]:
                    found.append((first + number, " ".join(match[0].split()), advice))
    return [f"{path}:{line}: {phrase}: {advice}" for line, phrase, advice in sorted(found)]


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    files = [file for path in given for file in (path, *sorted(path.rglob("*")))]
    problems = [line for file in files if file.suffix in {".md", ".py"} for line in findings(file)]
    sys.exit("\n".join(problems) or 0)
