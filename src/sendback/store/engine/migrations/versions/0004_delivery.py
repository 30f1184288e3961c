"""Delivery by MX: destinations, contents apart from the queue, TLS policies."""

import sqlalchemy as sa
from alembic import op

from sendback.mail.address import AddressError, parse_address

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_CHUNK = 1000


def upgrade() -> None:
    op.create_table(
        "outbox_contents",
        sa.Column("message_id", sa.String(length=80), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("fallback", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["message_id"], ["outbox.message_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("message_id"),
    )
    op.execute(
        "INSERT INTO outbox_contents (message_id, content, fallback) "
        "SELECT message_id, content, fallback FROM outbox"
    )
    op.drop_index("outbox_due", "outbox")
    for name in ("content", "fallback"):
        op.drop_column("outbox", name)
    op.add_column(
        "outbox", sa.Column("domain", sa.String(length=255), nullable=False, server_default="")
    )
    op.add_column("outbox", sa.Column("sender", sa.Text(), nullable=True))
    op.add_column("outbox", sa.Column("sender_account_id", sa.String(length=12), nullable=True))
    queued = sa.text("state = 'queued'")
    for name, columns in (("due", ["domain", "due_at"]), ("by_expiry", ["expires_at"])):
        op.create_index(
            f"outbox_{name}", "outbox", columns, sqlite_where=queued, postgresql_where=queued
        )
    op.create_index("outbox_by_age", "outbox", ["created_at"])
    op.add_column("attempts", sa.Column("tls_policy", sa.String(length=32), nullable=True))
    _destinations()
    op.create_table(
        "mta_sts_policies",
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("policy_id", sa.String(length=32), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("fetched_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("domain"),
    )


def _destinations() -> None:
    op.create_table(
        "destinations",
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("blocked_until", sa.BigInteger(), nullable=True),
        sa.Column("paused", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("changed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("domain"),
    )
    op.create_index("destinations_due", "destinations", ["paused", "due_at"])
    _fill_domains()
    op.execute(
        "INSERT INTO destinations (domain, due_at, failures, paused) "
        "SELECT domain, min(due_at), 0, 0 FROM outbox WHERE state = 'queued' GROUP BY domain"
    )


def _fill_domains() -> None:
    """Set the domain of each row, in steps by key: an outbox may be larger than the memory."""
    connection = op.get_bind()
    select = sa.text(
        "SELECT message_id, recipient FROM outbox WHERE message_id > :after "
        "ORDER BY message_id LIMIT :most"
    )
    update = sa.text("UPDATE outbox SET domain = :domain WHERE message_id = :key")
    after = ""
    while rows := connection.execute(select, {"after": after, "most": _CHUNK}).all():
        after = rows[-1].message_id
        values = [{"key": row.message_id, "domain": _domain(row.recipient)} for row in rows]
        connection.execute(update, values)


def _domain(recipient: str) -> str:
    try:
        return parse_address(recipient).ascii_domain
    except AddressError:
        return ""
