"""What the console needs: the bounces of a message, counters, and who changed what.

Expand only: the tables and the index are new, so nodes of the version before are not affected.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
kind = "expand"


def upgrade() -> None:
    op.create_index("outbox_by_original", "outbox", ["original_message_id"])
    op.create_table(
        "counters",
        sa.Column("minute", sa.BigInteger(), primary_key=True),
        sa.Column("account_id", sa.String(12), primary_key=True),
        sa.Column("kind", sa.String(12), primary_key=True),
        sa.Column("detail", sa.String(64), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "audit_lines",
        sa.Column("line_id", sa.String(48), primary_key=True),
        sa.Column("account_id", sa.String(12), nullable=False),
        sa.Column("user_name", sa.String(64), nullable=False),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
    )
    op.create_index("audit_lines_by_account", "audit_lines", ["account_id", "line_id"])
    op.create_index("audit_lines_by_age", "audit_lines", ["created_at"])
