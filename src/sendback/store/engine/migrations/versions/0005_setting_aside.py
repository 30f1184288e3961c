"""Columns for setting aside rows that break their worker; indexes for the sweeps."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_QUEUED = "state = 'queued'"
_SUSPECT = "state = 'queued' AND tries >= 2"


def upgrade() -> None:
    for table in ("processing", "outbox", "identity_checks"):
        _add_number(table, "tries", sa.Integer())
    _add_number("steps", "broken", sa.Integer())
    _add_number("rule_set_versions", "kept_at", sa.BigInteger())
    op.add_column("processing", sa.Column("reason", sa.Text(), nullable=True))
    for name, table in (
        ("processing_due", "processing"),
        ("outbox_due", "outbox"),
        ("messages_by_expiry", "messages"),
    ):
        op.drop_index(name, table)
    _queues()
    _sweeps()


def _queues() -> None:
    _index("processing_due", "processing", ["due_at"], _QUEUED)
    _index("processing_suspects", "processing", ["due_at"], _SUSPECT)
    _index("processing_ended", "processing", ["created_at"], "state <> 'queued'")
    set_aside = "state IN ('held', 'dropped')"
    _index("processing_set_aside", "processing", ["account_id", "message_id"], set_aside)
    _index("outbox_due", "outbox", ["domain", "due_at", "tries"], _QUEUED)
    _index("outbox_suspects", "outbox", ["due_at"], _SUSPECT)


def _sweeps() -> None:
    content = "body IS NOT NULL OR blob IS NOT NULL"
    _index("messages_by_age", "messages", ["received_at"])
    _index("messages_by_expiry", "messages", ["expires_at"], content)
    _index("messages_by_blob", "messages", ["blob"], "blob IS NOT NULL")
    _index("access_keys_by_expiry", "access_keys", ["expires_at"], "expires_at IS NOT NULL")
    _index("dkim_keys_by_retirement", "dkim_keys", ["retired_at"], "retired_at IS NOT NULL")
    _index("mta_sts_policies_by_expiry", "mta_sts_policies", ["expires_at"])
    _index("rule_sets_by_version", "rule_sets", ["version"])


def _add_number(table: str, name: str, kind: sa.Integer) -> None:
    op.add_column(table, sa.Column(name, kind, nullable=False, server_default="0"))


def _index(name: str, table: str, columns: list[str], where: str = "") -> None:
    condition = sa.text(where) if where else None
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)
