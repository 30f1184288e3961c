"""`sendback db copy`: an installation moves to another database, complete, and serves there."""

import re
import shutil
import urllib.request
from datetime import timedelta
from email import message_from_bytes
from email.policy import default
from urllib.parse import urlencode

import pytest
from sqlalchemy import func, select

from sendback.config.readers import content_store
from sendback.service.access.audit import Audit
from sendback.service.access.caller import Caller
from sendback.service.access.sessions import Credentials
from sendback.store.access.users import NamedPolicy, PutUserPolicy
from sendback.store.engine.content.ledger import ClaimContent
from sendback.store.engine.copying import CopyError, CopyOptions, copy_installation
from sendback.store.engine.nodes import RecordNode
from sendback.store.engine.store import prepare_schema, transact
from sendback.store.engine.tables import metadata
from sendback.store.engine.versions import SchemaError, UnfinishedCopyError
from sendback.store.outbox.mta_sts import CachedStsPolicy, PutStsPolicy
from tests.conftest import NOW, need
from tests.partners.clients import MAIL
from tests.partners.postgresql import binaries, query, shared_server
from tests.partners.sendback import run_cli

SECRET = "5e" * 32
ACCOUNT = "000000000000"
LARGE = MAIL + (b"y" * 98 + b"\r\n") * 9000
POLICY = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, '
    '"Action": "ses:SendBounce", "Resource": "*"}]}'
)
OWN_POLICY = '{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
RULES = """
active_rule_set = "main"
topics = { "arn:aws:sns:us-east-1:000000000000:hook" = "http://127.0.0.1:9/x" }
[[rule_sets.main.rules]]
Name = "no"
Recipients = ["no@example.com"]
Actions = [
  { BounceAction = { SmtpReplyCode = "550", Message = "No", Sender = "a@example.com" } },
]
[[rule_sets.main.rules]]
Name = "rest"
Recipients = ["example.com"]
Actions = [{ AddHeaderAction = { HeaderName = "X-A", HeaderValue = "b" } }]
"""


def new_database(kind, tmp_path, name):
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / name}"
    need("PostgreSQL", available=binaries() is not None)
    return shared_server().create_empty()


@pytest.fixture(params=[("sqlite", "postgresql"), ("postgresql", "sqlite")], ids="-".join)
def databases(request, tmp_path):
    """The URLs of a source and a target."""
    urls = [new_database(kind, tmp_path, f"{kind}.db") for kind in request.param]
    yield urls
    for url in urls:
        if url.startswith("postgresql"):
            shared_server().drop(url)


def counts(url):
    def count(connection):
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar()
            for table in metadata.sorted_tables
        }

    return transact(url, count, writes=False)


def open_server(running, url, **settings):
    return running(database=url, secret=SECRET, send_bounce_rate="0", content_store="", **settings)


def populate(server):
    """Give every table rows; what is needed of it later."""
    ses = server.ses
    ses.verify_domain_identity(Domain="example.com")
    ses.verify_domain_dkim(Domain="example.com")
    ses.set_identity_mail_from_domain(Identity="example.com", MailFromDomain="m.example.com")
    ses.set_identity_dkim_enabled(Identity="example.com", DkimEnabled=True)
    ses.put_identity_policy(Identity="example.com", PolicyName="p", Policy=POLICY)
    ses.create_receipt_filter(
        Filter={"Name": "f", "IpFilter": {"Policy": "Block", "Cidr": "192.0.2.0/24"}}
    )
    ses.create_custom_verification_email_template(
        TemplateName="t", FromEmailAddress="a@example.com", TemplateSubject="s",
        TemplateContent="<p>x</p>", SuccessRedirectionURL="https://x.example/",
        FailureRedirectionURL="https://x.example/",
    )  # fmt: skip
    issued = server.issue(ACCOUNT, "ann")
    store = server.app.store
    server.run(store.write(PutUserPolicy(ACCOUNT, "ann", NamedPolicy("p", OWN_POLICY))))
    server.run(server.app.passwords.set(ACCOUNT, "ann", "correct horse battery"))
    given = Credentials(ACCOUNT, "ann", "correct horse battery")
    server.run(server.app.console_sessions.sign_in(given, "127.0.0.1"))
    audit = Audit(store, server.app.clock)
    server.run(audit.record(Caller(ACCOUNT, "ann", ""), "127.0.0.1", "/domains", "Paused."))
    sts = CachedStsPolicy("x.example", "1", "version: STSv1", NOW, NOW + timedelta(days=1))
    server.run(store.write(PutStsPolicy(sts)))
    address = content_store("s3://bucket/prefix?endpoint=https://s3.example")
    server.run(store.write(ClaimContent("kkkkkkkk:name", address)))
    server.fail("rcpt", name="one", recipient="f@example.com", reply="451 4.3.0 later")
    before = server.send_mail()
    server.set_up(RULES)
    large = server.send_mail(content=LARGE)
    refused = server.send_mail(recipients=("no@example.com",))
    server.steps(refused)
    server.steps(large)
    bounced = server.send_bounce()
    server.bounce(bounced)
    return {"key": issued, "before": before, "large": large}


def copy(tmp_path, source, target, *options, data="data0", check=True):
    return run_cli(
        "db", "copy", source, target, "--data-dir", str(tmp_path / data), *options,
        check=check, environment={"SENDBACK_SECRET": SECRET},
    )  # fmt: skip


def test_a_copy_serves_like_its_source(running, tmp_path, databases):
    source, target = databases
    server = open_server(running, source)
    made = populate(server)
    refused = copy(tmp_path, source, target, check=False)
    assert refused.returncode == 1
    assert "servers use the database" in refused.stderr
    server.stop()
    before = counts(source)
    assert [name for name, count in before.items() if not count] == (
        ["content_chunks"] if source.startswith("sqlite") else []
    )
    done = copy(tmp_path, source, target)
    assert "counts and checksums agree" in done.stdout
    after = counts(target)
    assert after.pop("content_chunks") == 2
    before.pop("content_chunks")
    assert after == before
    shutil.rmtree(tmp_path / "data0")  # nothing of it is needed but the secret
    moved = open_server(running, target)
    assert moved.content(made["large"]).endswith(b"y" * 98 + b"\r\n")
    ses = moved.ses_client(key=made["key"].key.access_key, secret=made["key"].secret)
    bounce = ses.send_bounce(
        OriginalMessageId=made["before"],
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}],
    )
    assert moved.bounce(bounce["MessageId"]).state == "captured"
    signed = moved.run(moved.app.signing.sign(moved.outbox()[0]))
    assert b"d=example.com" in signed.content
    by_rule = moved.send_mail(recipients=("no@example.com",))
    assert [step.action for step in moved.steps(by_rule)] == ["Bounce", "AddHeader"]
    moved.fail("rcpt", name="two", recipient="g@example.com", reply="451 4.3.0 later")
    assert [fault.rule.name for fault in moved.run(moved.app.faults.list())] == ["one", "two"]


def test_links_in_verification_mails_survive_a_copy(running, tmp_path, databases):
    source, target = databases
    server = open_server(running, source, verification="proved")
    server.ses.verify_email_identity(EmailAddress="ann@sender.example")
    (mail,) = server.outbox()
    content = server.run(server.app.outbox.find(ACCOUNT, mail.message_id))[0].content
    text = message_from_bytes(content, policy=default).get_body(("plain",)).get_content()
    (link,) = re.findall(r"/verify\?t=(\S+)", text)
    server.stop()
    copy(tmp_path, source, target)
    moved = open_server(running, target, verification="proved")
    form = urlencode({"t": link}).encode()
    with urllib.request.urlopen(f"{moved.endpoint}/verify", form, timeout=20) as page:
        assert page.status == 200
    states = moved.ses.get_identity_verification_attributes(Identities=["ann@sender.example"])
    assert states["VerificationAttributes"]["ann@sender.example"]["VerificationStatus"] == "Success"


@pytest.fixture
def pair(tmp_path):
    """A source with accounts, an empty target, and the options of a copy."""
    source, target = (f"sqlite:///{tmp_path / name}" for name in "ab")
    prepare_schema(source)
    rows = ", ".join(f"('{number:012}', 0, 0)" for number in range(3000))
    query(source, f"INSERT INTO accounts (account_id, created_at, last_bounce_at) VALUES {rows}")
    return source, target, CopyOptions(tmp_path / "blobs", "f")


def no_report(_line):
    pass


def test_an_interrupted_copy_is_no_database_and_is_begun_anew(pair):
    source, target, options = pair
    query(source, "INSERT INTO ip_filters VALUES ('000000000001', 'f', 'Block', '192.0.2.0/24')")

    def stop(line):
        if line == "comparing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_installation(source, target, options, stop)
    with pytest.raises(UnfinishedCopyError, match="run `sendback db copy` again"):
        prepare_schema(target)
    query(source, "DELETE FROM ip_filters")
    query(source, "DELETE FROM accounts WHERE account_id > '000000000999'")
    copied = copy_installation(source, target, options, no_report)
    assert copied.tables["accounts"].rows == 1000
    assert counts(target)["accounts"] == 1000
    assert counts(target)["ip_filters"] == 0
    prepare_schema(target)


def test_a_second_copy_at_once_ends_the_first(pair):
    source, target, options = pair

    def begin_another(line):
        if line == "comparing":
            query(target, "UPDATE alembic_version SET version_num = 'copying 0123456789ab'")

    with pytest.raises(CopyError, match="another copy into the same database has begun"):
        copy_installation(source, target, options, begin_another)


def test_a_target_with_data_is_replaced_on_request_only(pair):
    source, target, options = pair
    prepare_schema(target)
    query(target, "INSERT INTO accounts VALUES ('999999999999', 0, 0, NULL, NULL)")
    query(target, "INSERT INTO ip_filters VALUES ('999999999999', 'f', 'Block', '192.0.2.0/24')")
    with pytest.raises(CopyError, match=r"has data, in ip_filters: .*--replace"):
        copy_installation(source, target, options, no_report)
    replacing = CopyOptions(options.files, "f", replace=True)
    copy_installation(source, target, replacing, no_report)
    assert counts(target)["ip_filters"] == 0
    assert counts(target)["accounts"] == 3000


def test_a_difference_is_found(pair):
    source, target, options = pair

    def spoil(line):
        if line == "comparing":
            query(target, "UPDATE accounts SET created_at = 1 WHERE account_id = '000000000007'")

    with pytest.raises(CopyError, match="the copy of accounts differs: 3000 rows instead of 3000"):
        copy_installation(source, target, options, spoil)
    with pytest.raises(UnfinishedCopyError):
        prepare_schema(target)


def test_a_copy_needs_the_same_secret(pair):
    source, target, options = pair
    query(source, "INSERT INTO installation VALUES ('secret', 'another')")
    with pytest.raises(CopyError, match="sealed with another secret"):
        copy_installation(source, target, options, no_report)


def test_servers_on_the_target_are_never_ignored(pair):
    source, target, options = pair
    prepare_schema(target)
    for url in (source, target):
        transact(url, RecordNode("a:1", "1.0"), writes=True)
    with pytest.raises(CopyError, match=r"servers use the database .*/a: a:1.*--while-serving"):
        copy_installation(source, target, options, no_report)
    brave = CopyOptions(options.files, "f", replace=True, while_serving=True)
    with pytest.raises(CopyError, match=r"servers use the database .*/b: a:1"):
        copy_installation(source, target, brave, no_report)


def test_what_is_no_source(pair, tmp_path):
    source, target, options = pair
    with pytest.raises(CopyError, match=r"there is no database .*/missing"):
        copy_installation(f"sqlite:///{tmp_path / 'missing'}", target, options, no_report)
    assert not (tmp_path / "missing").exists()
    with pytest.raises(CopyError, match="are the same database"):
        copy_installation(source, source, options, no_report)
    query(source, "UPDATE alembic_version SET version_num = '0008'")
    with pytest.raises((CopyError, SchemaError), match=r"0008.*sendback db upgrade"):
        copy_installation(source, target, options, no_report)


def test_nul_of_older_versions_is_replaced(pair):
    source, target, options = pair
    query(
        source,
        "INSERT INTO destinations (domain, failures, paused, reason) VALUES ('x', 0, 0, :text)",
        text="a\0b",
    )
    copied = copy_installation(source, target, options, no_report)
    assert copied.replaced_nul == 1
    assert query(target, "SELECT reason FROM destinations") == [("a\ufffdb",)]


def test_a_missing_file_is_reported(pair):
    source, target, options = pair
    query(
        source,
        "INSERT INTO messages (message_id, account_id, received_at, expires_at, envelope, size, "
        "header, blob) VALUES ('m', '000000000001', 1, 2, '{}', 3, :header, 'lost')",
        header=b"",
    )
    assert copy_installation(source, target, options, no_report).missing_files == ["lost"]


def test_each_table_has_a_key_by_which_it_is_read():
    assert [table.name for table in metadata.sorted_tables if not table.primary_key.columns] == []
