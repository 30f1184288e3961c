"""tools/plain_words.py reports phrases in comments, docstrings and Markdown only."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/plain_words.py"


def check(*files):
    """Return the exit code and the printed lines."""
    done = subprocess.run([sys.executable, TOOL, *files], capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).splitlines()


@pytest.mark.parametrize(
    ("text", "line", "phrase"),
    [
        ("# The worker gives up.\n", 1, "gives up"),
        (
            'x = 1\n\n\ndef f():\n    """Return one.\n\n    It hangs\n    on x.\n    """\n',
            7,
            "hangs on",
        ),
        ('class A:\n    """Nobody\'s token."""\n', 2, "Nobody's"),
    ],
)
def test_a_phrase_in_a_comment_or_docstring_is_reported(tmp_path, text, line, phrase):
    file = tmp_path / "a.py"
    file.write_text(text)
    code, (report,) = check(file)
    assert code == 1
    assert report.startswith(f"{file}:{line}: {phrase}: ")


def test_strings_names_and_quotations_are_not_prose(tmp_path):
    file = tmp_path / "a.py"
    file.write_text('gives_up = "gives up"\n# RFC 5321 §4.5.4.1, quoted: the sender gives up\n')
    assert check(file) == (0, [])


def test_a_folder_is_searched_and_code_in_markdown_left_out(tmp_path):
    (tmp_path / "a.md").write_text("`in hand`\n\n```\ngives up\n```\n\nTwo are in\nhand.\n")
    (tmp_path / "b.py").write_text("# Return the value.\n")
    (tmp_path / "c.txt").write_text("gives up\n")
    code, (report,) = check(tmp_path)
    assert code == 1
    assert report.startswith(f"{tmp_path}/a.md:7: in hand: ")
