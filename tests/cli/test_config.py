import json
from datetime import timedelta
from pathlib import Path

import pytest

from sendback.config.loading import load
from sendback.config.settings import SettingError
from sendback.config.types import Listen, Outbound, Smarthost
from tests.partners.sendback import run_cli

pytestmark = pytest.mark.sqlite("it uses no database")


def settings(environ=None, file=None, **flags):
    return load(flags, environ or {}, file).settings


def test_the_defaults_are_safe():
    found = settings()
    assert found.http_listen == Listen("127.0.0.1", 4579)
    assert found.smtp_listen == Listen("127.0.0.1", 2525)
    assert found.outbound.captures
    assert found.retry_first == timedelta(minutes=1)
    assert found.give_up_after == timedelta(days=5)
    assert found.smtp_max_size == 40 * 1024 * 1024


def test_the_later_source_wins_and_is_named(tmp_path):
    file = tmp_path / "sendback.toml"
    file.write_text('region = "eu-west-1"\nworkers = 2\naccount_id = "111111111111"\n')
    environ = {"SENDBACK_WORKERS": "3", "SENDBACK_ACCOUNT_ID": "222222222222"}
    loaded = load({"account_id": "333333333333", "hostname": None}, environ, file)
    assert loaded.settings.region == "eu-west-1"
    assert loaded.settings.workers == 3
    assert loaded.settings.account_id == "333333333333"
    assert loaded.origins["region"] == str(file)
    assert loaded.origins["workers"] == "environment"
    assert loaded.origins["account_id"] == "flag"
    assert loaded.origins["hostname"] == "default"


@pytest.mark.parametrize(
    ("text", "outbound"),
    [
        ("capture", Outbound()),
        ("mx", Outbound(by_mx=True)),
        ("smtp://relay.example", Outbound((Smarthost("relay.example", 25),))),
        ("smtp://127.0.0.1:2500", Outbound((Smarthost("127.0.0.1", 2500),))),
        ("smtp://[::1]:2500", Outbound((Smarthost("::1", 2500),))),
        (
            "smtp://u%40x:p%3Aw@relay.example:587",
            Outbound((Smarthost("relay.example", 587, "u@x", "p:w"),)),
        ),
        (
            "smtps://a.example, smtp://b.example:26",
            Outbound((Smarthost("a.example", 465, implicit_tls=True), Smarthost("b.example", 26))),
        ),
    ],
)
def test_ways_out(text, outbound):
    assert settings(outbound=text).outbound == outbound


def test_delivery_by_mx():
    found = settings(
        outbound="mx",
        delivery_tls="Bank.example=verified, .gov.example=encrypted,*=opportunistic",
        source_address="192.0.2.1, 2001:db8::1",
    )
    assert (str(found.outbound), found.outbound.captures) == ("mx", False)
    assert found.delivery_tls == {
        "bank.example": "verified", ".gov.example": "encrypted", "*": "opportunistic",
    }  # fmt: skip
    assert found.source_address == ("192.0.2.1", "2001:db8::1")
    assert not found.allows_private_targets
    assert not found.verifies_at_once


def test_a_password_is_never_printed():
    assert str(settings(outbound="smtp://u:p@relay.example").outbound) == (
        "smtp://u:***@relay.example:25"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("outbound", "mx,smtp://relay"),
        ("mx_port", "0"),
        ("delivery_tls", "a.example"),
        ("delivery_tls", "a.example=strict"),
        ("delivery_tls", "a b=verified"),
        ("dnssec", "maybe"),
        ("source_address", "192.0.2.1,192.0.2.2"),
        ("tls_ca_file", "/nowhere"),
        ("outbound", "http://relay"),
        ("outbound", "smtp://"),
        ("outbound", "smtp://user@relay"),
        ("outbound", "smtp://relay:99999"),
        ("http_listen", "4579"),
        ("http_listen", "127.0.0.1:99999"),
        ("http_listen", "0.0.0.0:4579"),
        ("workers", "0"),
        ("workers", "many"),
        ("send_bounce_rate", "-1"),
        ("send_bounce_rate", "nan"),
        ("account_id", "12"),
        ("hostname", "a b"),
        ("retry_first", "0s"),
        ("retry_first", "soon"),
        ("give_up_after", ""),
        ("log_level", "loud"),
        ("tls_certificate", "/no/such/file"),
        ("database", "mysql://x"),
        ("retention", "1h"),
        ("development_key", "maybe"),
        ("workers", "２"),
        ("account_id", "１２３４５６７８９０１２"),
        ("retry_first", "999999999999999999999d"),
        ("clock_offset", "-36501d"),
        ("dns", "192.0.2.1:0"),
        ("dns", "192.0.2.1:99999"),
        ("dns", "[::1"),
        ("http_listen", "127.0.0.1:²"),
        ("http_listen", "\x1b[31m:80"),
        ("rspamd", "http://["),
        ("public_url", "http://example.com:port"),
        ("s3_endpoint", "http://[::1"),
        ("mailbox_server", "smtp://\u2100"),
        ("function_environment", "A-B"),
        ("function_environment", "PATH,SENDBACK_SECRET"),
        ("data_dir", "a\0b"),
    ],
)
def test_an_invalid_setting_is_named_with_its_value_and_what_is_allowed(name, value):
    with pytest.raises(SettingError) as caught:
        settings(**{name: value})
    assert caught.value.name == name
    assert name in str(caught.value)
    assert caught.value.allowed


def test_without_the_development_key_any_address_may_be_listened_on():
    found = settings(http_listen="0.0.0.0:4579", development_key="false")
    assert not found.development_key


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"regoin = 'x'", "regoin"),
        (b"not toml", "a TOML file"),
        (b"region = '\xff'", "a TOML file"),
        (b"region = " + b"[" * 100_000, "nested too deep"),
        (b"#" * 2_000_000, "1048576 octets"),
        (b"outbound = ['smtp://u:hunter2@relay']", "not a list"),
        (b"outbound = {relay = 'smtp://u:hunter2@relay'}", "not a table"),
        (b"retry_first = 2026-03-01", "not a date"),
        (b"outbuond = 'smtp://u:hunter2@relay'", "no setting has this name"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, content, words):
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    with pytest.raises(SettingError, match=words) as caught:
        settings(file=file)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there():
    for path in ("/no/such/file", "/"):
        with pytest.raises(SettingError, match="readable"):
            settings(file=Path(path))


WITH_PASSWORDS = [
    ("outbound", "smtp://u:hunter2@relay:99999"),
    ("outbound", "smtp://u:hunter2@[::1"),
    ("outbound", "smtp://u:hunter2"),
    ("outbound", "u:hunter2@relay"),
    ("outbound", "smtp://u:p,hunter2@relay"),
    ("outbound", "smtp://u:hunter2@\u2100"),
    ("outbound", "smtp://u:hunter2@relay/path"),
    ("outbound", "mx,smtp://u:hunter2@relay"),
    ("database", "mysql://u:hunter2@db/sendback"),
    ("public_url", "ftp://u:hunter2@example.com"),
    ("rspamd", "https://u:hunter2@example.com"),
    ("s3_endpoint", "s3://u:hunter2@example.com"),
    ("sns_endpoint", "u:hunter2@example.com"),
    ("lambda_endpoint", "http//u:hunter2@example.com"),
    ("mailbox_server", "smtps://u:hunter2@example.com"),
    ("secret", "hunter2"),
]


@pytest.mark.parametrize(("name", "value"), WITH_PASSWORDS)
def test_the_error_about_a_setting_shows_no_password(tmp_path, name, value):
    file = tmp_path / "x.toml"
    file.write_text(f"{name} = '{value}'")
    for source in ({"environ": {f"SENDBACK_{name.upper()}": value}}, {name: value}, {"file": file}):
        with pytest.raises(SettingError) as caught:
            settings(**source)
        assert name in str(caught.value)
        assert "hunter2" not in str(caught.value) + repr(caught.value.value)


def test_a_long_value_is_cut():
    with pytest.raises(SettingError) as caught:
        settings(region="x" * 1_000_000)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("flags", "environment", "words"),
    [
        (("--outbound", "dns"), {}, ("outbound", "'dns'", "flag", "write capture, mx, or smtp")),
        (("--outbound", "mx"), {"SENDBACK_DNS": "off"}, ("dns", "'off'", "needs DNS: system")),
        ((), {"SENDBACK_WORKERS": "no"}, ("workers", "'no'", "environment", "1 to 256")),
        (("--http-listen", "0.0.0.0:1"), {}, ("http_listen", "loopback", "keys create")),
        (("--http-listen", "192.0.2.1:0"), {"SENDBACK_DEVELOPMENT_KEY": "0"}, ("http_listen",)),
    ],
)
def test_serve_stops_at_once_with_exit_code_2(tmp_path, flags, environment, words):
    done = run_cli(
        "serve", "--data-dir", str(tmp_path), *flags, check=False, environment=environment
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_serve_says_when_the_port_is_taken(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_cli("serve", "--data-dir", str(tmp_path), "--http-listen", "127.0.0.1:0",
            "--smtp-listen", listen, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "smtp_listen" in done.stderr
    assert "in use" in done.stderr


def test_serve_says_when_the_data_directory_cannot_be_written(tmp_path):
    file = tmp_path / "a-file"
    file.write_text("")
    done = run_cli("serve", "--data-dir", str(file / "data"), check=False)
    assert done.returncode == 2
    assert "data_dir" in done.stderr


def test_config_show_prints_the_effective_settings_with_their_origin():
    done = run_cli("config", "show", "--json", environment={"SENDBACK_REGION": "eu-west-1"})
    rows = {row["setting"]: row for row in json.loads(done.stdout)}
    assert rows["region"]["value"] == "eu-west-1"
    assert rows["region"]["from"] == "environment"
    assert rows["region"]["environment"] == "SENDBACK_REGION"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_config_show_prints_no_password(form):
    urls = {
        "outbound": "smtp://u:hunter2@relay.example,smtps://u:hunter2@other.example",
        "public_url": "https://u:hunter2@example.com/x",
        "rspamd": "http://u:hunter2@127.0.0.1:11333",
        "s3_endpoint": "http://u:hunter2@127.0.0.1:5000",
        "mailbox_server": "smtp://u:hunter2@127.0.0.1",
        "secret": "ab" * 32,
    }
    environment = {f"SENDBACK_{name.upper()}": value for name, value in urls.items()}
    done = run_cli("config", "show", *form, environment=environment)
    assert "hunter2" not in done.stdout + done.stderr
    assert "abab" not in done.stdout + done.stderr
    for shown in ("smtp://u:***@relay.example:25", "https://***@example.com/x", "(hidden)"):
        assert shown in done.stdout


def test_the_settings_as_an_object_show_no_password():
    found = settings(outbound="smtp://u:hunter2@relay.example", secret="ab" * 32)
    assert "hunter2" not in repr(found) + repr(found.outbound)
    assert "abab" not in repr(found)
