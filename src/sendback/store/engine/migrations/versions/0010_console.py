"""What the console needs: who has signed in, who changed what, counters, the bounces of a message.

Expand only: the tables and the indexes are new, so nodes of the version before are not affected.
"""

import sqlalchemy as sa
from alembic import op

from sendback.store.engine.migrating import build_index

revision = "0010"
down_revision = "0009"
kind = "expand"


def upgrade() -> None:
    op.create_table(
        "counters",
        sa.Column("account_id", sa.String(12), primary_key=True),
        sa.Column("width", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("begins_at", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(12), primary_key=True),
        sa.Column("detail", sa.String(255), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        if_not_exists=True,
    )
    op.create_index("counters_by_age", "counters", ["width", "begins_at"], if_not_exists=True)
    op.create_table(
        "audit_lines",
        sa.Column("line_id", sa.String(48), primary_key=True),
        sa.Column("account_id", sa.String(12), nullable=False),
        sa.Column("user_name", sa.String(64), nullable=False),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "audit_lines_by_account", "audit_lines", ["account_id", "line_id"], if_not_exists=True
    )
    op.create_index("audit_lines_by_age", "audit_lines", ["created_at"], if_not_exists=True)
    op.create_table(
        "console_passwords",
        sa.Column(
            "account_id", sa.String(12), sa.ForeignKey("accounts.account_id"), primary_key=True
        ),
        sa.Column("user_name", sa.String(64), primary_key=True),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "console_sessions",
        sa.Column("session_hash", sa.String(64), primary_key=True),
        sa.Column(
            "account_id", sa.String(12), sa.ForeignKey("accounts.account_id"), nullable=False
        ),
        sa.Column("user_name", sa.String(64), nullable=False),
        sa.Column("access_key", sa.String(128), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "console_sessions_by_user",
        "console_sessions",
        ["account_id", "user_name"],
        if_not_exists=True,
    )
    op.create_index(
        "console_sessions_by_expiry", "console_sessions", ["expires_at"], if_not_exists=True
    )
    answers = "original_message_id <> ''"
    build_index("outbox_by_original", "outbox", ["original_message_id"], answers)
    build_index("outbox_held", "outbox", ["account_id"], "state = 'held'")
