from datetime import timedelta
from pathlib import Path

import pytest

from sendback.config import SettingError, load
from sendback.setting_texts import Listen, Outbound, Smarthost
from tests.partners.sendback import run_cli


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


def test_an_unknown_setting_in_the_file_is_named(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text("regoin = 'x'")
    with pytest.raises(SettingError, match="regoin"):
        settings(file=file)
    file.write_text("not toml")
    with pytest.raises(SettingError, match="a TOML file"):
        settings(file=file)
    with pytest.raises(SettingError, match="readable"):
        settings(file=Path("/no/such/file"))


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
    import json

    done = run_cli(
        "config", "show", "--json",
        environment={"SENDBACK_OUTBOUND": "smtp://u:hidden@relay.example"},
    )  # fmt: skip
    rows = {row["setting"]: row for row in json.loads(done.stdout)}
    assert rows["outbound"]["from"] == "environment"
    assert "hidden" not in done.stdout
    assert rows["region"]["value"] == "us-east-1"
    assert rows["region"]["environment"] == "SENDBACK_REGION"
