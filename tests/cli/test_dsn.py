import json
import subprocess
import sys

import pytest

from sendback.cli.bounce import REASONS as NAMES
from sendback.dsn import REASONS, check, compose, parse
from tests.dsn.cases import CASES
from tests.partners.sendback import run_cli

pytestmark = pytest.mark.sqlite("it uses no database")


def composed(*arguments, given=None):
    done = subprocess.run(
        [sys.executable, "-m", "sendback", "dsn", "compose", *arguments],
        capture_output=True,
        input=json.dumps(given).encode() if given else None,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compose_from_flags(tmp_path):
    original = tmp_path / "original.eml"
    original.write_bytes(b"Message-ID: <a@b.example>\nSubject: x\n\nhello\n")
    content = composed(
        "--from", "postmaster@example.com", "--to", "ann@sender.example",
        "--recipient", "bob@example.com", "--recipient", "eve@example.com",
        "--reason", "ExceededQuota", "--reporting-mta", "mx.example.com",
        "--original", str(original), "--return-full", "--language", "de",
    )  # fmt: skip
    assert check(content) == []
    dsn = parse(content)
    assert [entry.status for entry in dsn.recipients] == ["5.2.2", "5.2.2"]
    assert dsn.header_value("In-Reply-To") == "<a@b.example>"
    assert dsn.returned == b"Message-ID: <a@b.example>\r\nSubject: x\r\n\r\nhello\r\n"
    assert dsn.explanation.startswith("Diese Nachricht")


def test_compose_from_json_and_parse_into_json():
    given = {
        "from": "Mail System <postmaster@example.com>",
        "to": "ann@sender.example",
        "message_id": "1@example.com",
        "date": "2026-03-01T12:00:00",
        "reporting_mta": "dns; mx.example.com",
        "arrival_date": "2026-03-01T11:00:00+01:00",
        "original_envelope_id": "QQ1",
        "extension_fields": {"X-A": "1"},
        "explanation": "Sorry.",
        "recipients": [
            {
                "recipient": "bob@example.com",
                "action": "delayed",
                "status": "4.2.2",
                "diagnostic_code": "smtp; 452 4.2.2 full",
                "original_recipient": "rfc822;Bob@example.com",
                "remote_mta": "dns; mail.example.org",
                "last_attempt_date": "2026-03-01T11:30:00",
                "will_retry_until": "2026-03-06T11:30:00",
                "extension_fields": {"X-B": "2"},
            }
        ],
    }
    content = composed("-", given=given)
    assert check(content) == []
    done = subprocess.run(
        [sys.executable, "-m", "sendback", "dsn", "parse", "-", "--json"],
        capture_output=True, input=content, check=True,
    )  # fmt: skip
    read = json.loads(done.stdout)
    assert read["message"]["Arrival-Date"] == "Sun, 01 Mar 2026 10:00:00 +0000"
    assert read["recipients"][0]["fields"]["Will-Retry-Until"] == "Fri, 06 Mar 2026 11:30:00 +0000"
    assert read["explanation"] == "Sorry.\r\n"


def test_parse_into_a_table(tmp_path):
    file = tmp_path / "bounce.eml"
    file.write_bytes(compose(CASES["one-recipient"], "b").replace(b"\r\n", b"\n"))
    shown = run_cli("dsn", "parse", str(file)).stdout
    assert "Final-Recipient    rfc822; userunknown@example.net" in shown
    assert "5.1.1  (Bad destination mailbox address)" in shown
    assert "This message could not be delivered." in shown


def test_check(tmp_path):
    file = tmp_path / "bounce.eml"
    clean = compose(CASES["one-recipient"], "b")
    file.write_bytes(clean)
    assert run_cli("dsn", "check", str(file)).stdout == "No violation found.\n"
    assert json.loads(run_cli("dsn", "check", str(file), "--json").stdout) == []
    file.write_bytes(clean.replace(b"Status: 5.1.1", b"Status: 550"))
    done = run_cli("dsn", "check", str(file), check=False)
    assert done.returncode == 1
    assert "RFC 3464 §2.3.4" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compose",), "from is missing"),
        (("compose", "--from", "a@b.example", "--to", "x"), "recipients"),
        (
            ("compose", "--from", "a@b.example", "--to", "x", "--recipient", "y@z.example"),
            "'x' has no @",
        ),
        (
            ("compose", "--from", "a@b.example", "--to", "x@y.example", "--recipient",
             "y@z.example", "--reason", "Odd"),
            "Odd",
        ),
        (("compose", "--language", "tlh"), "language must be one of"),
        (("check", "/no/such/file"), "cannot be read"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_exit_code_2(arguments, words):
    done = run_cli("dsn", *arguments, check=False)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_message_that_is_no_bounce_is_exit_code_1(tmp_path):
    file = tmp_path / "mail.eml"
    file.write_text("Subject: x\n\nhello\n")
    done = run_cli("dsn", "parse", str(file), check=False)
    assert (done.returncode, "multipart/report" in done.stderr) == (1, True)


def test_the_reasons_of_the_command_line_are_those_of_the_library():
    assert tuple(REASONS) == NAMES
