"""A copied database without the installation's secret gives no key away."""

import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sendback.crypto.sealing import Sealing, SecretError
from sendback.service.identities.dkim_keys import belongs_to
from tests.partners.clients import ses
from tests.partners.sendback import Sendback, run_cli

pytestmark = pytest.mark.sqlite("it copies the file of the database")


def forms(secret: bytes) -> list[bytes]:
    """How octets might stand in a file: as they are, in hexadecimal, in base64 at each offset."""
    found = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + secret)
        found.append(text[4:-4] if shift else text.rstrip(b"=")[:-1])
    return found


def whole_database(folder: Path) -> bytes:
    files = sorted(folder.glob("data/sendback.db*"))
    assert any(file.name.endswith("-wal") for file in files)
    return b"".join(file.read_bytes() for file in files)


def private_parts(sealing: Sealing, database: Path) -> list[bytes]:
    """What is secret in the DKIM keys: the PKCS 8 octets, and an RSA key's numbers."""
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT account_id, domain, selector, sealed_key FROM dkim_keys"
        rows = connection.execute(query).fetchall()
    found: list[bytes] = []
    for account, domain, selector, sealed in rows:
        private = sealing.open(sealed, belongs_to(account, domain, selector))
        key = serialization.load_der_private_key(private, None)
        found.append(private)
        if hasattr(key, "private_numbers"):
            numbers = key.private_numbers()
            secret = (numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.iqmp)
            found += [number.to_bytes((number.bit_length() + 7) // 8) for number in secret]
        else:
            found.append(key.private_bytes_raw())
    return found


@pytest.mark.parametrize("given", [False, True])
def test_no_secret_is_in_it(tmp_path, given):
    environment = {"SENDBACK_DKIM_ED25519": "true", "SENDBACK_VERIFICATION": "proved"}
    if given:
        environment["SENDBACK_SECRET"] = "5e" * 32
    with Sendback(tmp_path, environment=environment) as server:
        place = ["--data-dir", str(server.data_dir), "--json"]
        run_cli("users", "create", "ann", *place[:2], environment=environment)
        issued = _json(run_cli("keys", "create", "--user", "ann", *place, environment=environment))
        temporary = _json(
            run_cli("keys", "temporary", "--user", "ann", *place, environment=environment)
        )
        client = ses(
            server.endpoint, key=issued["access_key_id"], secret=issued["secret_access_key"]
        )
        assert len(client.verify_domain_dkim(Domain="example.com")["DkimTokens"]) == 3
        client.verify_email_identity(EmailAddress="ann@other.example")
        database = whole_database(tmp_path)
        assert issued["access_key_id"].encode() in database  # the search finds what is there
        sealing = Sealing(server.data_dir / "secret.key", environment.get("SENDBACK_SECRET", ""))
        parts = private_parts(sealing, server.data_dir / "sendback.db")
        assert len(parts) == 2 * 6 + 2 * 2
        installation = bytes.fromhex(
            environment.get("SENDBACK_SECRET")
            or (server.data_dir / "secret.key").read_text().strip()
        )
        secrets = [
            issued["secret_access_key"].encode(),
            temporary["secret_access_key"].encode(),
            temporary["session_token"].encode(),
            installation,
            sealing.derive("verification links"),
            *parts,
        ]
        for secret in secrets:
            assert not any(form in database for form in forms(secret))
        assert given is not (server.data_dir / "secret.key").exists()


def test_another_secret_opens_nothing_and_is_named(tmp_path):
    with Sendback(tmp_path) as server:
        issued = server.json("keys", "create")
        server.stop()
    (tmp_path / "data/secret.key").write_text("00" * 32)
    with pytest.raises(RuntimeError, match="sealed with another secret than the one in") as caught:
        Sendback(tmp_path).start()
    assert "Traceback" not in str(caught.value)
    with closing(sqlite3.connect(tmp_path / "data/sendback.db")) as connection:
        row = connection.execute("SELECT sealed_secret FROM access_keys").fetchone()
    with pytest.raises(SecretError, match=issued["access_key_id"]):
        Sealing(tmp_path / "data/secret.key").open(row[0], issued["access_key_id"])


def test_a_sealed_secret_cannot_be_moved_to_another_key(tmp_path):
    sealing = Sealing(tmp_path / "secret.key")
    sealed = sealing.seal(b"secret", "AKIA1")
    assert sealing.open(sealed, "AKIA1") == b"secret"
    with pytest.raises(SecretError):
        sealing.open(sealed, "AKIA2")


@pytest.mark.parametrize("text", ["", "xyz", "00" * 31, "0" * 63])
def test_a_secret_file_that_holds_none(tmp_path, text):
    (tmp_path / "secret.key").write_text(text)
    with pytest.raises(SecretError, match=r"secret\.key"):
        Sealing(tmp_path / "secret.key").seal(b"x", "y")


def test_the_secret_file_is_the_owners_alone(tmp_path):
    Sealing(tmp_path / "secret.key").seal(b"x", "y")
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600


def _json(done):
    return json.loads(done.stdout)
