"""Contents in the database, the ledger of contents, and the object stores that have some.

Expand only: the tables are new, so nodes of the version before are not affected.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
kind = "expand"


def upgrade() -> None:
    op.create_table(
        "loose_contents",
        sa.Column("blob", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "content_stores",
        sa.Column("store_key", sa.String(8), primary_key=True),
        sa.Column("url", sa.Text(), nullable=False),
    )
    op.create_table(
        "content_chunks",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("octets", sa.LargeBinary(), nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE content_chunks ALTER COLUMN octets SET STORAGE EXTERNAL")
