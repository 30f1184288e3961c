"""Write docs/man/sendback.1 from the tree of commands: `python tools/man_page.py [--check]`."""

import sys
from pathlib import Path
from typing import Any

from typer.main import get_command

from sendback.cli.main import app

FILE = Path(__file__).parents[1] / "docs" / "man" / "sendback.1"
_HEAD = """\
.TH SENDBACK 1
.SH NAME
sendback \\- receive mail by SMTP and bounce it the way Amazon SES does
.SH SYNOPSIS
.B sendback
.I COMMAND
[\\fIOPTION\\fR ...]
.SH DESCRIPTION
Sendback receives mail by SMTP, runs Amazon SES receipt rules on it, and bounces it by SendBounce.
Start with \\fBsendback demo\\fR, then \\fBsendback serve\\fR. Each command has \\fB\\-\\-help\\fR.
.SH EXIT STATUS
0: success. 1: failure. 2: an invalid command or setting. 130: interrupted.
.SH ENVIRONMENT
Each setting is a variable \\fBSENDBACK_\\fINAME\\fR: see \\fBsendback config show\\fR.
.SH COMMANDS
"""


def page() -> str:
    """Return the man page."""
    lines = [_HEAD.rstrip("\n")]
    _add(lines, get_command(app), "sendback")
    return "\n".join(lines) + "\n"


def _add(lines: list[str], command: Any, name: str) -> None:
    children = getattr(command, "commands", {})
    for child_name in sorted(children):
        _add(lines, children[child_name], f"{name} {child_name}")
    if children:
        return
    arguments = " ".join(
        (parameter.name or "").upper() + ("..." if parameter.nargs == -1 else "")
        for parameter in command.params
        if parameter.param_type_name == "argument"
    )
    lines += [".SS", _text(f"{name} {arguments}".strip()), _text(command.help or "")]
    for parameter in command.params:
        if parameter.param_type_name == "option":
            names = ", ".join([*parameter.opts, *parameter.secondary_opts])
            lines += [".TP", f"\\fB{_text(names)}\\fR", _text(parameter.help or "")]


def _text(text: str) -> str:
    """Return a text whose characters mean nothing to troff, in one line for each paragraph."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    escaped = [part.replace("\\", "\\e").replace("-", "\\-") for part in paragraphs if part]
    whole = "\n.PP\n".join(f"\\&{part}" if part[0] in ".'" else part for part in escaped)
    return "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in whole)


def main() -> int:
    """Write the page, or compare it."""
    if "--check" not in sys.argv:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(page())
        return 0
    if FILE.read_text() != page():
        sys.exit(f"{FILE} is not up to date: run python tools/man_page.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
