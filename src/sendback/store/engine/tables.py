"""The tables. Dates are Unix milliseconds."""

from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    event,
    text,
)

from sendback.store.engine.column_types import GuardedString, GuardedText

metadata = MetaData()

# The schema of a new database: the newest file in migrations/versions.
SCHEMA_VERSION = "0010"
# The schema that this code needs at least: the newest of these files that does not contract.
REQUIRED_SCHEMA = "0010"
# The oldest schema whose code can use SCHEMA_VERSION: see `versions.py`.
OLDEST_SCHEMA = "0008"

# Conditions of partial indexes. SQLite uses the index only for a query with the identical text.
HAS_CONTENT = "body IS NOT NULL OR blob IS NOT NULL"
SUSPECT = "state = 'queued' AND tries >= 2"
HELD = "state = 'held'"
ANSWERS = "original_message_id <> ''"
SET_ASIDE = "state IN ('held', 'dropped')"


def _where(condition: str) -> Any:
    # Naming the other dialect here imports it, 40 ms at each start: see `index_conditions`.
    return {"sqlite_where": text(condition)}


def index_conditions() -> None:
    """Give the partial indexes their conditions for PostgreSQL too, before they are created."""
    for table in metadata.tables.values():
        for index in table.indexes:
            condition = index.dialect_options["sqlite"]["where"]
            index.dialect_options["postgresql"]["where"] = condition


accounts = Table(
    "accounts",
    metadata,
    Column("account_id", String(12), primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("last_bounce_at", BigInteger, nullable=False),  # SendBounce's rate limit
    Column("active_rule_set", String(64)),
    Column("name", GuardedText),
)

users = Table(
    "users",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("user_name", GuardedString(64), primary_key=True),
    Column("created_at", BigInteger, nullable=False),
)

user_policies = Table(
    "user_policies",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("user_name", GuardedString(64), primary_key=True),
    Column("policy_name", GuardedString(64), primary_key=True),
    Column("document", GuardedText, nullable=False),
)

access_keys = Table(
    "access_keys",
    metadata,
    Column("access_key", GuardedString(128), primary_key=True),
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False),
    Column("user_name", GuardedString(64), nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("expires_at", BigInteger),  # of temporary credentials, which have a session token too
    Column("token_hash", GuardedString(64)),
    Index("access_keys_by_user", "account_id", "user_name"),
    Index("access_keys_by_expiry", "expires_at", **_where("expires_at IS NOT NULL")),
)

# Values of the whole installation by name, such as the fingerprint of its secret.
installation = Table(
    "installation",
    metadata,
    Column("name", GuardedString(32), primary_key=True),
    Column("value", GuardedText, nullable=False),
)

# The number of the last change that caches depend on: see `changes.py`.
generations = Table(
    "generations",
    metadata,
    Column("name", GuardedString(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
)

identities = Table(
    "identities",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("identity", GuardedString(320), primary_key=True),
    Column("kind", GuardedString(12), nullable=False),  # EmailAddress, Domain
    Column("status", GuardedString(20), nullable=False),  # SES API: VerificationStatus
    Column("verification_token", GuardedString(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("identities_by_identity", "identity"),
)

# The DNS records to look up for an identity: its domain's, its DKIM keys', its MAIL FROM domain's.
identity_checks = Table(
    "identity_checks",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("identity", GuardedString(320), primary_key=True),
    Column("kind", GuardedString(12), primary_key=True),  # domain, dkim, mail_from
    Column("status", GuardedString(20), nullable=False),  # SES API: VerificationStatus
    Column("asked_at", BigInteger, nullable=False),
    Column("checked_at", BigInteger),
    Column("away_since", BigInteger),
    Column("due_at", BigInteger),  # None: no more lookups
    Column("reason", GuardedText, nullable=False),
    # The number of lookups begun since a result was last recorded: see `leasing.py`.
    Column("tries", Integer, nullable=False, server_default="0"),
    Index("identity_checks_due", "due_at"),
)

# An identity without a row has the defaults.
identity_settings = Table(
    "identity_settings",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("identity", GuardedString(320), primary_key=True),
    Column(
        "settings", GuardedText, nullable=False
    ),  # JSON of store.identities.settings.IdentitySettings
)

identity_policies = Table(
    "identity_policies",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("identity", GuardedString(320), primary_key=True),  # need not exist
    Column("policy_name", GuardedString(64), primary_key=True),
    Column("document", GuardedText, nullable=False),
    Index("identity_policies_by_identity", "identity"),
)

dkim_keys = Table(
    "dkim_keys",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("domain", GuardedString(255), primary_key=True),
    Column("selector", GuardedString(63), primary_key=True),
    Column("algorithm", GuardedString(8), nullable=False),  # rsa, ed25519: RFC 6376's k= tag
    Column("state", GuardedString(8), nullable=False),  # active, standby, retired
    Column("sealed_key", LargeBinary),  # PKCS 8; gone once retired
    Column("public_key", GuardedText, nullable=False),  # RFC 6376's p= tag
    Column("created_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger),  # in DNS, last
    Column("retired_at", BigInteger),
    Index("dkim_keys_by_retirement", "retired_at", **_where("retired_at IS NOT NULL")),
)

verification_templates = Table(
    "verification_templates",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("name", GuardedString(64), primary_key=True),
    Column("from_address", GuardedText, nullable=False),
    Column("subject", GuardedText, nullable=False),
    Column("content", GuardedText, nullable=False),
    Column("success_url", GuardedText, nullable=False),
    Column("failure_url", GuardedText, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("message_id", String(40), primary_key=True),
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("received_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("envelope", Text, nullable=False),  # JSON
    Column("size", BigInteger, nullable=False),  # octets of header and body
    Column("header", LargeBinary, nullable=False),
    Column("body", LargeBinary),  # up to 256 KiB; None when in a content store, or expired
    # The body's content store and its name there, STORE:NAME; NAME alone is in the directory.
    Column("blob", String(64)),
    Index("messages_by_account", "account_id", "message_id"),
    Index("messages_by_age", "received_at"),
    Index("messages_by_expiry", "expires_at", **_where(HAS_CONTENT)),
    Index("messages_by_blob", "blob", **_where("blob IS NOT NULL")),
)

# Contents that no message names: see `content/ledger.py`.
loose_contents = Table(
    "loose_contents",
    metadata,
    Column("blob", String(64), primary_key=True),
    Column("state", String(8), nullable=False),
    Column("since", BigInteger, nullable=False),
)

# The object stores that contents are in, or were. URLs are without credentials.
content_stores = Table(
    "content_stores",
    metadata,
    Column("store_key", String(8), primary_key=True),
    Column("url", Text, nullable=False),
)

# The content store `database`.
content_chunks = Table(
    "content_chunks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("octets", LargeBinary, nullable=False),
)
# Mail does not become smaller by PostgreSQL's compression, and its length is read often.
EXTERNAL_STORAGE = "ALTER TABLE content_chunks ALTER COLUMN octets SET STORAGE EXTERNAL"
_make_external: Any = DDL(EXTERNAL_STORAGE)  # type: ignore[no-untyped-call]
event.listen(content_chunks, "after_create", _make_external.execute_if(dialect="postgresql"))

# Only queued rows are selected by date; finished rows are not in these indexes.
_WHILE_QUEUED = _where("state = 'queued'")
_WHILE_SUSPECT = _where(SUSPECT)

outbox = Table(
    "outbox",
    metadata,
    Column("message_id", String(80), primary_key=True),
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False),
    Column("original_message_id", String(40), nullable=False),
    Column("recipient", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("state", String(12), nullable=False),
    # When a worker may lease it. A lease only moves this date, so an expired lease is a due row.
    Column("due_at", BigInteger, nullable=False),
    Column("lease_owner", String(64)),
    Column("lease_token", Integer, nullable=False),  # grows with each lease: the fencing token
    Column("attempts", Integer, nullable=False),
    Column("last_reply", Text),
    # The recipient's domain in canonical form.
    Column("domain", String(255), nullable=False, server_default=""),
    Column("sender", Text),  # the address in From
    Column("sender_account_id", String(12)),  # the account that owns the identity of `sender`
    Column("tries", Integer, nullable=False, server_default="0"),
    Index("outbox_due", "domain", "due_at", "tries", **_WHILE_QUEUED),
    Index("outbox_suspects", "due_at", **_WHILE_SUSPECT),
    Index("outbox_by_expiry", "expires_at", **_WHILE_QUEUED),
    Index("outbox_by_account", "account_id", "created_at"),
    Index("outbox_by_age", "created_at"),
    # Partial, so that verification mails are counted by their own index.
    Index("outbox_by_original", "original_message_id", **_where(ANSWERS)),
    Index("outbox_held", "account_id", **_where(HELD)),
    # Verification mails, which belong to no received message: counted for their rate limits.
    Index(
        "outbox_verifications",
        "created_at",
        "account_id",
        "domain",
        **_where("original_message_id = ''"),
    ),
)

# A table of its own: SQLite rewrites the whole row of `outbox` for each lease and each attempt.
outbox_contents = Table(
    "outbox_contents",
    metadata,
    Column("message_id", ForeignKey("outbox.message_id", ondelete="CASCADE"), primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("fallback", LargeBinary),  # for servers without 8BITMIME, when the content needs it
)

# The domains that mail is queued for: see `destinations.py`.
destinations = Table(
    "destinations",
    metadata,
    Column("domain", String(255), primary_key=True),
    Column("due_at", BigInteger),  # when to query for due mail next; None: there is none
    Column("failures", Integer, nullable=False),  # in a row
    Column("blocked_until", BigInteger),
    Column("paused", Integer, nullable=False),  # 1: by the operator
    Column("reason", Text),
    Column("changed_at", BigInteger),
    Index("destinations_due", "paused", "due_at"),
)

# The MTA-STS policies of domains (RFC 8461).
mta_sts_policies = Table(
    "mta_sts_policies",
    metadata,
    Column("domain", GuardedString(255), primary_key=True),
    Column("policy_id", GuardedString(32), nullable=False),
    Column("policy", GuardedText, nullable=False),  # as it was fetched
    Column("fetched_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("mta_sts_policies_by_expiry", "expires_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("message_id", ForeignKey("outbox.message_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("started_at", BigInteger, nullable=False),
    Column("milliseconds", Integer, nullable=False),
    Column("outcome", String(12), nullable=False),  # delivered, captured, temporary, permanent
    Column("peer", Text, nullable=False),
    Column("tls", String(16)),
    Column("reply", Text, nullable=False),
    Column("tls_policy", String(32)),
)

remembered_calls = Table(
    "remembered_calls",
    metadata,
    Column("invocation_id", GuardedString(128), primary_key=True),
    Column("access_key", GuardedString(128), primary_key=True),
    Column("body_hash", GuardedString(64), primary_key=True),
    Column("message_id", GuardedString(80), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("remembered_calls_by_age", "created_at"),
)

rule_sets = Table(
    "rule_sets",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("name", GuardedString(64), primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("version", GuardedString(64), nullable=False),
    Index("rule_sets_by_version", "version"),
)

# Never changed: a message is processed by the rules that were active when it was received.
rule_set_versions = Table(
    "rule_set_versions",
    metadata,
    Column("version", GuardedString(64), primary_key=True),  # the hash of the rules
    Column("rules", GuardedText, nullable=False),  # JSON
    # When a rule set named it last. It is kept for a day more, for mail that is being received.
    Column("kept_at", BigInteger, nullable=False, server_default="0"),
)

ip_filters = Table(
    "ip_filters",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("name", GuardedString(64), primary_key=True),
    Column("policy", GuardedString(8), nullable=False),
    Column("cidr", GuardedString(64), nullable=False),
)

targets = Table(
    "targets",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("kind", GuardedString(12), primary_key=True),  # bucket, topic, function, mailbox
    Column("name", GuardedString(512), primary_key=True),  # the bucket's name, or an ARN
    Column("target", GuardedText, nullable=False),
)

processing = Table(
    "processing",
    metadata,
    Column("processing_id", String(60), primary_key=True),  # message ID / account ID
    Column("message_id", String(40), nullable=False),
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False),
    Column("version", String(64), nullable=False),
    Column("rule_set", String(64), nullable=False),
    Column("verdicts", Text),  # JSON, once they were needed
    Column("created_at", BigInteger, nullable=False),
    Column("state", String(12), nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("lease_owner", String(64)),
    Column("lease_token", Integer, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("reason", Text),  # why it is held, dropped or delayed
    Index("processing_due", "due_at", **_WHILE_QUEUED),
    Index("processing_suspects", "due_at", **_WHILE_SUSPECT),
    Index("processing_ended", "created_at", **_where("state <> 'queued'")),
    Index("processing_set_aside", "account_id", "message_id", **_where(SET_ASIDE)),
    Index("processing_by_version", "version"),
)

steps = Table(
    "steps",
    metadata,
    Column(
        "processing_id",
        ForeignKey("processing.processing_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("rule_number", Integer, primary_key=True),
    Column("action_number", Integer, primary_key=True),
    Column("rule", String(64), nullable=False),
    Column("action", String(12), nullable=False),
    Column("outcome", String(12), nullable=False),
    Column("disposition", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),  # of the next attempt
    Column("milliseconds", Integer, nullable=False),  # of the last attempt
    Column("result", Text, nullable=False),
    # How many attempts in a row ended in an internal error.
    Column("broken", Integer, nullable=False, server_default="0"),
)

# Fault rules, in the order in which they are tried. They belong to the whole installation.
faults = Table(
    "faults",
    metadata,
    Column("fault_id", Integer, primary_key=True, autoincrement=True),
    Column("name", GuardedString(64), nullable=False, unique=True),
    Column("definition", GuardedText, nullable=False),  # the JSON form
    Column("created_at", BigInteger, nullable=False),
    Column("matched", BigInteger, nullable=False),  # the number of events that it matched
    Column("injected", BigInteger, nullable=False),  # how many of them it made fail
)

# How often something happened in a period of `width` seconds, to an account or to none ('').
# Of each event there are two rows, one for its minute and one for its hour.
counters = Table(
    "counters",
    metadata,
    Column("account_id", String(12), primary_key=True),
    Column("width", Integer, primary_key=True, autoincrement=False),
    Column("begins_at", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", GuardedString(12), primary_key=True),
    Column("detail", GuardedString(255), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Index("counters_by_age", "width", "begins_at"),
)

# Who changed what in the console.
audit_lines = Table(
    "audit_lines",
    metadata,
    Column("line_id", GuardedString(48), primary_key=True),  # begins with the time
    Column("account_id", String(12), nullable=False),
    Column("user_name", GuardedString(64), nullable=False),
    Column("client", GuardedString(64), nullable=False),
    Column("path", GuardedText, nullable=False),
    Column("text", GuardedText, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("audit_lines_by_account", "account_id", "line_id"),
    Index("audit_lines_by_age", "created_at"),
)

console_passwords = Table(
    "console_passwords",
    metadata,
    Column("account_id", ForeignKey("accounts.account_id"), primary_key=True),
    Column("user_name", GuardedString(64), primary_key=True),
    Column("hash", GuardedText, nullable=False),  # argon2id
    Column("changed_at", BigInteger, nullable=False),
)

# Who has signed in to the console: of each session's cookie only the hash is stored.
console_sessions = Table(
    "console_sessions",
    metadata,
    Column("session_hash", GuardedString(64), primary_key=True),
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False),
    Column("user_name", GuardedString(64), nullable=False),
    Column("access_key", GuardedString(128), nullable=False),  # empty: signed in by password
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("console_sessions_by_user", "account_id", "user_name"),
    Index("console_sessions_by_expiry", "expires_at"),
)
