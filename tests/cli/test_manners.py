"""Every command with invalid and hostile input: a message and exit code 1 or 2, no traceback."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from sendback.cli.main import app
from tests.partners.sendback import run_cli

SENDBACK = [sys.executable, "-m", "sendback"]
ESCAPE = "\x1b[31m\x9b\u202e"
RAW = {"\x1b", "\x9b", "\u202e"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of files that commands cannot use."""
    folder = tmp_path_factory.mktemp("files")
    contents = {
        "binary": b"\0\1\xff\xfe" * 1000,
        "empty": b"",
        "deep.json": b"[" * 100_000,
        "deep.toml": b"a = " + b"[" * 100_000,
        "array.json": b"[]",
        "latin-1": b"\xe9",
        "mail": b"Subject: x\n\nhello\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    run_cli("db", "create", "--data-dir", str(folder / "data"))
    (folder / f"odd{ESCAPE}").mkdir()
    return folder


COMPOSE = ("dsn", "compose", "--from", "a@b.example", "--to", "ann@sender.example")
BOB = ("--recipient", "bob@example.com")
TEST = ("rules", "test", "mail", "--to", "bob@example.com")
TO = ("--to", "bob@example.com", "--smtp", "127.0.0.1:9")
SEND = ("bounce", "x", "--sender", "a@b.example", "--recipient", "b@example.com")

# (exit code, a word of the message, the command); a file is named relative to the folder.
CASES = [
    (2, "No such command", ("frobnicate",)),
    (2, "No such option", ("messages", "list", f"--{ESCAPE}")),
    (2, "'shell'", ("completion", f"ba{ESCAPE}sh")),
    *[
        case
        for name, words in [
            ("missing", "cannot be read"),
            ("data", "cannot be read"),
            ("/dev/zero", "too large"),
            ("/proc/self/mem", "cannot be read"),
            (f"none{ESCAPE}", "cannot be read"),
        ]
        for case in [
            (2, words, ("dsn", "parse", name)),
            (2, words, ("dsn", "check", name)),
            (2, words, ("dsn", "compose", name)),
            (2, words, (*COMPOSE, *BOB, "--original", name)),
            (2, words, ("policies", "put", "p", name, "--user", "u")),
            (2, words, ("rules", "apply", name)),
            # A directory is one of mails.
            *([(2, words, ("inject", name, *TO))] if name != "data" else []),
            (2, words, ("rules", "test", name, "--to", "b@example.com", "--from", "a@b.example")),
        ]
    ],
    (1, "multipart/report", ("dsn", "parse", "binary")),
    (1, "multipart/report", ("dsn", "parse", "empty")),
    (2, "not JSON", ("dsn", "compose", "empty")),
    (2, "UTF-8", ("dsn", "compose", "binary")),
    (2, "nested too deep", ("dsn", "compose", "deep.json")),
    (2, "not a JSON object", ("dsn", "compose", "array.json")),
    (2, "UTF-8", ("policies", "put", "p", "latin-1", "--user", "u")),
    (2, "UTF-8", ("rules", "apply", "binary")),
    (2, "nested too deep", ("rules", "apply", "deep.toml")),
    (2, "no TOML", ("rules", "apply", "mail")),
    (2, "TOML", ("config", "show", "--config", "mail")),
    (2, "nested too deep", ("config", "show", "--config", "deep.toml")),
    (2, "readable", ("messages", "list", "--config", "missing")),
    (2, "readable", ("messages", "list", "--config", "data")),
    (1, "there is no data directory", ("messages", "list", "--data-dir", "missing")),
    (1, "not a data directory", ("outbox", "list", "--data-dir", "mail")),
    (1, "not a data directory", ("outbox", "list", "--data-dir", "mail")),
    (1, "no data directory", ("keys", "create", "--data-dir", "/proc/none/here")),
    (2, "data_dir", ("db", "create", "--data-dir", "/proc/none/here")),
    (2, "data_dir", ("serve", "--data-dir", "mail/below")),
    (2, "--ready-file", ("serve", "--ready-file", "missing/ready")),
    (2, "database", ("messages", "list", "--database", "mysql://u:hunter2@h/x")),
    (2, "outbound", ("serve", "--outbound", "smtp://u:hunter2@[::1")),
    (2, "reason must be one of", (*COMPOSE, *BOB, "--reason", "Nope")),
    (2, "reason must be one of", (*COMPOSE, *BOB, "--reason", ESCAPE)),
    (2, "language must be one of", (*COMPOSE, *BOB, "--language", "xx")),
    (2, "recipients is missing", COMPOSE),
    (2, "recipient is missing", (*COMPOSE, "--recipient", "")),
    (2, "", (*COMPOSE, "--recipient", f"b{ESCAPE}@example.com")),
    (2, "Reporting-MTA", (*COMPOSE, *BOB, "--reporting-mta", "a b")),
    (2, "From", ("dsn", "compose", "--from", "a\nBcc: x", "--to", "a@b.example", *BOB)),
    (2, "--limit", ("messages", "list", "--limit", "-1")),
    (2, "--limit", ("messages", "list", "--limit", "0")),
    (2, "--limit", ("messages", "list", "--limit", "99999999999999999999")),
    (2, "--limit", ("outbox", "list", "-n", "x")),
    (2, "--state", ("outbox", "list", "--state", ESCAPE)),
    (2, "--older-than", ("outbox", "list", "--older-than", "soon")),
    (2, "--older-than", ("outbox", "list", "--older-than", "999999999999d")),
    (2, "give MessageIds", ("outbox", "cancel")),
    (2, "account_id", ("messages", "list", "--account", "12")),
    (1, "no received message", ("messages", "show", ESCAPE)),
    (1, "no bounce", ("outbox", "show", ESCAPE)),
    (1, "no bounce", ("outbox", "retry", "nobody")),
    (2, "", ("outbox", "pause", f"a{ESCAPE}")),
    (1, "", ("identities", "verify", f"a{ESCAPE}")),
    (1, "no records", ("identities", "records", ESCAPE)),
    (1, "", ("identities", "sign", "nobody.example")),
    (1, "", ("identities", "rotate-dkim", "nobody.example")),
    (1, "no identity", ("identities", "delete", ESCAPE)),
    (1, "", ("users", "create", "")),
    (1, "", ("users", "create", ESCAPE)),
    (1, "no user", ("users", "delete", ESCAPE)),
    (1, "", ("keys", "create", "--user", "")),
    (1, "", ("keys", "create", "--user", ESCAPE)),
    (2, "--lasts", ("keys", "temporary", "--lasts", "forever")),
    (1, "no key", ("keys", "disable", ESCAPE)),
    (1, "no key", ("keys", "delete", "AKIA")),
    (1, "12 digits", ("accounts", "create", "--id", "12")),
    (2, "one of --identity and --user", ("policies", "list")),
    (1, "no policy", ("policies", "show", "p", "--user", "root")),
    (1, "", ("policies", "put", "p", "array.json", "--user", "root")),
    (1, "", ("policies", "put", "p", "deep.json", "--user", "root")),
    (2, "", ("policies", "simulate", "--from", "a@b.example", "--at", "soon")),
    (2, "", ("policies", "simulate", "--from", ESCAPE)),
    (1, "", ("rules", "show", "nobody")),
    (1, "", ("rules", "activate", ESCAPE)),
    (2, "name a rule set", ("rules", "activate")),
    (2, "", ("rules", "test", "mail", "--to", "x", "--from", "")),
    (1, "no rule set is active", (*TEST, "--from", "")),
    (2, "--address", ("doctor", "--address", ESCAPE)),
    (2, "--probe", ("doctor", "--probe", ESCAPE)),
    (2, "--probe", ("doctor", "--outside", "--probe", "x" * 64 + ".example")),
    (2, "--probe", ("doctor", "--outside", "--probe", "")),
    (2, "--endpoint-url", (*SEND, "--endpoint-url", "no url")),
    (2, "--endpoint-url", (*SEND, "--endpoint-url", "http://u:hunter2@[::1")),
    (1, "", (*SEND, "--endpoint-url", "http://127.0.0.1:9")),
    (2, "--reason", (*SEND, "--reason", "Nope")),
    (2, "is no point", ("faults", "add", ESCAPE)),
    (2, "no effect", ("faults", "add", "rcpt")),
    (2, "reply", ("faults", "add", "rcpt", "--reply", "soon")),
    (2, "reply", ("faults", "add", "rcpt", "--reply", f"451 {ESCAPE}")),
    (2, "no error code", ("faults", "add", "api", "--error", ESCAPE)),
    (2, "delay", ("faults", "add", "api", "--lost", "--delay", "nan")),
    (2, "probability", ("faults", "add", "rcpt", "--drop", "--probability", "5")),
    (2, "first", ("faults", "add", "rcpt", "--drop", "--first", "99999999999999999999")),
    (2, "client", ("faults", "add", "rcpt", "--drop", "--client", ESCAPE)),
    (2, "name", ("faults", "add", "rcpt", "--drop", "--name", ESCAPE)),
    (1, "no fault", ("faults", "remove", ESCAPE)),
    (2, "no server runs", ("inject", "mail")),
    (2, "--smtp", ("inject", "mail", "--smtp", f"{ESCAPE}:25")),
    (1, "no file *.eml", ("inject", "data", *TO)),
    (1, "no recipient", ("inject", "mail", "--smtp", "127.0.0.1:9")),
    (1, "no recipient", ("inject", "-", "--smtp", "127.0.0.1:9")),
    (1, "the SMTP server 127.0.0.1:9", ("inject", "mail", *TO)),
    (1, "the SMTP server 127.0.0.1:9", ("inject", "mail", *TO, "--from", ESCAPE)),
    (2, "no server runs", ("tail",)),
    (2, "--kind must be one of", ("tail", "--kind", ESCAPE)),
    (2, "--since", ("tail", "--since", ESCAPE)),
    (2, "--endpoint-url", ("tail", "--endpoint-url", "no url")),
    (2, "--endpoint-url", ("tail", "--endpoint-url", "http://u:hunter2@[::1")),
    (1, "cannot be reached", ("tail", "--endpoint-url", "http://u:hunter2@127.0.0.1:9")),
    (1, "cannot be reached", ("tail", "--endpoint-url", "http://127.0.0.1:9", "--account", ESCAPE)),
]  # fmt: skip


@pytest.mark.parametrize(("code", "words", "command"), CASES, ids=lambda value: str(value)[:60])
def test_a_message_and_an_exit_code(files, code, words, command):
    environment = {
        "SENDBACK_DATA_DIR": str(files / "data"),
        "SENDBACK_DNS": "127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    done = subprocess.run(
        [*SENDBACK, *command],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        cwd=files,
        env={**os.environ, **environment},
        timeout=60,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    assert done.returncode == code, (out, err)
    assert words in err
    assert err.strip()
    assert not RAW & set(out + err)
    assert "hunter2" not in out + err


def test_the_table_has_every_group_of_commands():
    """A new command needs a line in `CASES`."""
    names = {entry.name for entry in (*app.registered_groups, *app.registered_commands)}
    assert names - {command[0] for _, _, command in CASES} == {"demo"}


# --- the description of `dsn compose` -------------------------------------------------------------

DESCRIPTION = {
    "from": "postmaster@example.com",
    "to": "ann@sender.example",
    "reporting_mta": "mx.example.com",
    "recipients": [{"recipient": "bob@example.com", "reason": "DoesNotExist"}],
}
TEXTS = ("from", "to", "explanation", "language", "original", "reporting_mta", "date",
         "message_id", "arrival_date", "original_envelope_id")  # fmt: skip
RECIPIENT_TEXTS = ("recipient", "reason", "action", "status", "original_recipient", "remote_mta",
                   "diagnostic_code", "last_attempt_date", "will_retry_until")  # fmt: skip


def compose(description):
    text = description if isinstance(description, str) else json.dumps(description)
    return CliRunner().invoke(app, ["dsn", "compose", "-"], input=text)


@pytest.mark.parametrize("wrong", [5, True, [], ["x"], {"a": 1}], ids=str)
@pytest.mark.parametrize("name", TEXTS)
def test_a_member_of_a_wrong_type_is_named(name, wrong):
    done = compose({**DESCRIPTION, name: wrong})
    assert done.exit_code == 2, done.exception
    assert f"{name} must be a string" in done.output


@pytest.mark.parametrize("wrong", [5, True, [], ["x"], {"a": 1}], ids=str)
@pytest.mark.parametrize("name", RECIPIENT_TEXTS)
def test_a_recipients_member_of_a_wrong_type_is_named(name, wrong):
    recipient = {**DESCRIPTION["recipients"][0], name: wrong}
    done = compose({**DESCRIPTION, "recipients": [recipient]})
    assert done.exit_code == 2, done.exception
    assert f"recipient 1: {name} must be a string" in done.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipients": "x"}, "recipients must be a list"),
        ({"recipients": ["x"]}, "recipient 1 is not a JSON object"),
        ({"recipients": [None]}, "recipient 1 is not a JSON object"),
        ({"recipients": [{}]}, "recipient 1: recipient is missing"),
        ({"recipients": []}, "recipients is missing"),
        (
            {"recipients": [{"recipient": "b@example.com", "reason": "Nope"}]},
            "reason must be one of",
        ),
        ({"recipients": [{"recipient": "b@example.com", "action": "x"}]}, "action must be one of"),
        ({"recipients": [{"recipient": "b@example.com"}]}, "Status"),
        ({"recipients": [{"recipient": "b@example.com", "reasn": "x"}]}, "unknown member 'reasn'"),
        (
            {"recipients": [{"recipient": "b@example.com", "status": "5.1.1",
                             "original_recipient": "x"}]},
            "type; address",
        ),
        ({"extension_fields": [1]}, "extension_fields must be an object"),
        ({"extension_fields": {"X-A": 5}}, "'X-A' must be a string"),
        ({"extension_fields": {"Status": "x"}}, "standard DSN field"),
        ({"return_full": "yes"}, "return_full must be true or false"),
        ({"date": "soon"}, "date must be a date"),
        ({"date": "2026-13-01"}, "date must be a date"),
        ({"date": "0001-01-01T00:00:00+23:59"}, "date must be a date"),
        ({"date": "9999-12-31T23:59:59-23:59"}, "date must be a date"),
        ({"message_id": "a\r\nb"}, "Message-ID"),
        ({"original": "/nowhere"}, "cannot be read"),
        ({"form": "x"}, "unknown member 'form'"),
        ({"to": "no address"}, ""),
    ],
)  # fmt: skip
def test_an_error_names_what_is_wrong_in_the_description(change, words):
    done = compose({**DESCRIPTION, **change})
    assert done.exit_code == 2, done.exception
    assert words in done.output


NO_DESCRIPTIONS = (
    "", "{", "[]", "null", '{"from": NaN}', '{"a":' + "9" * 5000 + "}", '{"from": "\\ud800"}',
)  # fmt: skip


@pytest.mark.parametrize("text", NO_DESCRIPTIONS)
def test_an_invalid_description_is_exit_code_2(text):
    done = compose(text)
    assert done.exit_code == 2, done.exception


@pytest.mark.parametrize("name", [*TEXTS, "return_full", "extension_fields"])
def test_a_null_member_counts_as_absent(name):
    done = compose({**DESCRIPTION, name: None})
    needed = {"from", "to"}
    assert done.exit_code == (2 if name in needed else 0), done.output


# --- streams --------------------------------------------------------------------------------------


def test_a_closed_pipe_prints_no_error(files):
    """As in `sendback … | head -1`."""
    for command in (["config", "show"], ["config", "show", "--json"], ["--help"]):
        with subprocess.Popen(
            [*SENDBACK, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=files
        ) as process:
            process.stdout.close()
            err = process.stderr.read()
        assert (err, process.returncode) == (b"", 1)


def test_output_that_cannot_be_written_is_an_error(files):
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [*SENDBACK, "config", "show"], stdout=full, stderr=subprocess.PIPE, cwd=files
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams(files, closed):
    command = " ".join(SENDBACK)
    for arguments, code in (("config show", 0), ("dsn parse -", {"1>&-": 1, "2>&-": 1})):
        done = subprocess.run(
            ["sh", "-c", f"{command} {arguments} {closed}"],
            capture_output=True, cwd=files, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert b"Traceback" not in done.stderr
        expected = code if isinstance(code, int) else code.get(closed, 2)
        assert done.returncode == expected, done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"NO_COLOR": "1", "TERM": "dumb"},
        {"COLUMNS": "1"},
        {"COLUMNS": "x"},
    ],
    ids=str,
)
def test_any_locale_and_terminal(files, environment):
    environment = {"SENDBACK_DATA_DIR": str(files / "data"), **environment}
    run_cli("identities", "verify", "here.example", environment=environment)
    file = files / "text.eml"
    file.write_bytes(
        b"Content-Type: multipart/report; boundary=b\n\n--b\n\nGr\xc3\xbc\xc3\x9fe\n--b\n"
        b"Content-Type: message/delivery-status\n\nFinal-Recipient: b@example.com\n--b--\n"
    )
    for form in ([], ["--json"]):
        done = run_cli("identities", "list", *form, environment=environment)
        assert "here.example" in done.stdout
        assert run_cli("dsn", "parse", str(file), *form, environment=environment).stderr == ""
    assert run_cli("config", "show", environment=environment).returncode == 0


def test_on_a_terminal(files):
    """In a pseudo-terminal of 40 columns: escapes of rich are allowed, those of a mail not."""
    hostile = f"From: a@b.example\nSubject: {ESCAPE}x\nContent-Type: multipart/report; boundary=b\n"
    hostile += "\n--b\n\nText " + ESCAPE + "\n--b\nContent-Type: message/delivery-status\n\n"
    hostile += f"Final-Recipient: rfc822; b{ESCAPE}@example.com\nAction: failed\n--b--\n"
    (files / "hostile.eml").write_text(hostile)
    for command in (
        ["dsn", "parse", "hostile.eml"],
        ["dsn", "parse", "hostile.eml", "--json"],
        ["dsn", "check", "hostile.eml"],
        [*COMPOSE, *BOB, "--original", "hostile.eml"],
    ):
        out = in_terminal(command, files)
        assert "\x1b[31m" not in out
        assert not {"\x9b", "\u202e"} & set(out)


def in_terminal(command, folder):
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": "40", "TERM": "xterm"}
    with subprocess.Popen(
        [*SENDBACK, *command], stdin=child, stdout=child, stderr=child, cwd=folder, env=environment
    ) as process:
        os.close(child)
        octets = b""
        while True:
            try:
                piece = os.read(parent, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not piece:
                break
            octets += piece
    os.close(parent)
    assert process.returncode in {0, 1}
    return octets.decode("utf-8", "replace")


def test_json_escapes_invisible_characters(files):
    file = files / "hostile2.eml"
    file.write_text(
        "Content-Type: message/delivery-status\n\n"
        "Final-Recipient: rfc822; b\x9b\u202e\u2066\u2028\U000e0041@example.com\nAction: failed\n"
    )
    done = run_cli("dsn", "parse", str(file), "--json")
    assert done.stdout.replace("\n", "").isprintable()
    (recipient,) = json.loads(done.stdout)["recipients"]
    assert recipient["final_recipient"] == "b\x9b\u202e\u2066\u2028\U000e0041@example.com"


# --- Ctrl-C ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8])
def test_ctrl_c_at_any_moment(files, after):
    """During imports, while waiting for standard input, and during the work."""
    process = subprocess.Popen(
        [*SENDBACK, "dsn", "parse", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=files,
    )  # fmt: skip
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    # Before the first line of Sendback runs, the signal itself ends Python.
    assert process.returncode in {130, -signal.SIGINT}
    assert b"sendback" not in err or after < 0.1, err
    assert out == b""


def test_ctrl_c_during_a_slow_lookup(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        environment = {
            **os.environ,
            "SENDBACK_DATA_DIR": str(tmp_path),
            "SENDBACK_DNS": f"127.0.0.1:{silent.getsockname()[1]}",
            "SENDBACK_HOSTNAME": "mx.example.com",
        }
        process = subprocess.Popen(
            [*SENDBACK, "doctor", "--no-outside"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        )  # fmt: skip
        silent.settimeout(20)
        silent.recv(512)  # the query is sent, and the command waits
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.count(b"\n") == 1  # there is no store, and nothing about the interrupt
    assert err.startswith(b"Note: there is no store in ")


def test_an_ignored_interrupt_stays_ignored(files):
    """As with nohup, and in background jobs of a shell script."""
    command = " ".join([*SENDBACK, "dsn", "parse", "-"])
    process = subprocess.Popen(
        ["sh", "-c", f"trap '' INT; exec {command}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=files,
    )  # fmt: skip
    time.sleep(0.8)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(b"Subject: x\n\n", timeout=20)
    assert process.returncode == 1
    assert b"multipart/report" in err
