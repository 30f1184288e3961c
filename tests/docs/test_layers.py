"""Each contract of import-linter reports a forbidden import."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("mail/dates.py", "import sendback.store.engine.errors", "Layers import lower layers"),
        ("store/engine/errors.py", "import sendback.net.networks", "Layers import lower layers"),
        ("crypto/sealing.py", "import sendback.service.paging", "Layers import lower layers"),
        (
            "service/bouncing/requests.py",
            "import sendback.service.rules.steps",
            "The order within the service",
        ),
        (
            "service/queues/retry.py",
            "import sendback.service.receiving.spool",
            "The order within the service",
        ),
        (
            "store/access/users.py",
            "import sendback.store.outbox.rows",
            "The order within the store",
        ),
        (
            "smtp_client/replies.py",
            "import asyncio",
            "The SMTP client's conversations do no I/O",
        ),
        ("doctor/findings.py", "import sendback.doctor.checks", "The order within the doctor"),
        ("service/access/caller.py", "import sqlalchemy", "Only the store speaks to databases"),
        ("config/types.py", "import sendback.config.settings", "The order within the settings"),
        ("dsn/parse.py", "import socket", "The pure packages do no I/O"),
        ("receipt/plan.py", "import socket", "The pure packages do no I/O"),
        (
            "actions/topics.py",
            "import sendback.store.engine.tables",
            "The SQL of a table is in the store",
        ),
        ("smtp/machine.py", "import asyncio", "The SMTP machine is pure too"),
        ("s3/chunks.py", "import asyncio", "The requests of S3 are read without I/O"),
        ("s3/server.py", "import sendback.api.http", "Layers import lower layers"),
        (
            "service/outbox/statistics.py",
            "import sendback.store.engine.tables",
            "The SQL of a table is in the store",
        ),
        ("api/http.py", "import sqlalchemy", "Only the store speaks to databases"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(tmp_path, module, line, contract):
    shutil.copytree(ROOT / "src/sendback", tmp_path / "sendback")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    file = tmp_path / "sendback" / module
    file.write_text(f"{file.read_text()}\n{line}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (broken,) = (text for text in done.stdout.splitlines() if text.endswith(" BROKEN"))
    assert broken.startswith(contract)
