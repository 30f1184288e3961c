"""An index of the verification mails in the outbox, whose number is limited."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_index(
        "outbox_verifications",
        "outbox",
        ["created_at", "account_id", "domain"],
        sqlite_where=sa.text("original_message_id = ''"),
        postgresql_where=sa.text("original_message_id = ''"),
    )
