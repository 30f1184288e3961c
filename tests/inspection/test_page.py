"""The sessions of docs/inspection.md run on a server; UPDATE_GOLDEN=1 writes their output."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sendback.testing import Sendback
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs/inspection.md"
BOUNCE = {
    "BounceAction": {
        "SmtpReplyCode": "550",
        "StatusCode": "5.1.1",
        "Message": "Mailbox does not exist",
        "Sender": "mailer-daemon@example.com",
    }
}
_ID = r"[0-9a-v]{40}|0100[0-9a-f]{12}-[0-9a-f-]{36}-000000"
_DATE = r"\d{4}-\d\d-\d\dT[0-9:.]+(?:\+00:00)?"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_sessions_of_the_page_run():
    with Sendback() as server:
        server.verify("example.com")
        server.rules({"Name": "bounce", "Recipients": ["bob@example.com"], "Actions": [BOUNCE]})
        address = server.endpoint_url.removeprefix("http://")
        page = PAGE.read_text()
        for block in blocks(PAGE):
            if block.language != "console":
                continue
            for command, shown in block.commands:
                output = run(command.replace("127.0.0.1:4579", address))
                if os.environ.get("UPDATE_GOLDEN"):
                    page = page.replace(
                        f"$ {command}\n{shown}".rstrip("\n") + "\n", f"$ {command}\n{output}\n"
                    )
                else:
                    assert masked(output) == masked(shown), command
        if os.environ.get("UPDATE_GOLDEN"):
            Path(PAGE).write_text(page)


def run(command: str) -> str:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip("\n")


def masked(output: str) -> str:
    """Return an output without what differs from run to run: IDs, dates and states in progress."""
    text = re.sub(_ID, "ID", output)
    text = re.sub(_DATE, "DATE", text)
    return re.sub(r'"processing":"\w+"', '"processing":"…"', text)
