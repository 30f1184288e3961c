"""Accounts, users and their policies; verification by DNS; DKIM keys; sending authorization."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("name", sa.Text(), nullable=True))
    for name in ("disabled_at", "last_used_at", "expires_at"):
        op.add_column("access_keys", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("access_keys", sa.Column("token_hash", sa.String(length=64), nullable=True))
    op.create_index("access_keys_by_user", "access_keys", ["account_id", "user_name"])
    _of_account(
        "users",
        sa.Column("user_name", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        key=("user_name",),
    )
    op.execute(
        "INSERT INTO users (account_id, user_name, created_at) "
        "SELECT account_id, user_name, min(created_at) FROM access_keys "
        "WHERE user_name <> 'root' GROUP BY account_id, user_name"
    )
    _of_account(
        "user_policies",
        sa.Column("user_name", sa.String(length=64), nullable=False),
        sa.Column("policy_name", sa.String(length=64), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        key=("user_name", "policy_name"),
    )
    op.create_table(
        "installation",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    _identities()


def _identities() -> None:
    _of_account(
        "identity_checks",
        sa.Column("identity", sa.String(length=320), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("checked_at", sa.BigInteger(), nullable=True),
        sa.Column("away_since", sa.BigInteger(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        key=("identity", "kind"),
    )
    op.create_index("identity_checks_due", "identity_checks", ["due_at"])
    _of_account(
        "identity_settings",
        sa.Column("identity", sa.String(length=320), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        key=("identity",),
    )
    _of_account(
        "identity_policies",
        sa.Column("identity", sa.String(length=320), nullable=False),
        sa.Column("policy_name", sa.String(length=64), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        key=("identity", "policy_name"),
    )
    op.create_index("identity_policies_by_identity", "identity_policies", ["identity"])
    _of_account(
        "dkim_keys",
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("selector", sa.String(length=63), nullable=False),
        sa.Column("algorithm", sa.String(length=8), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=True),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        key=("domain", "selector"),
    )
    _of_account(
        "verification_templates",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("from_address", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("success_url", sa.Text(), nullable=False),
        sa.Column("failure_url", sa.Text(), nullable=False),
        key=("name",),
    )


def _of_account(name: str, *columns: "sa.Column[object]", key: tuple[str, ...]) -> None:
    """A table whose key begins with the account."""
    op.create_table(
        name,
        sa.Column("account_id", sa.String(length=12), nullable=False),
        *columns,
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"]),
        sa.PrimaryKeyConstraint("account_id", *key),
    )
