"""What migrations may do to tables that are large: in steps, without stopping the servers.

Both functions commit what was done before, so a migration that calls one does nothing else, and
can be repeated: after a crash it begins again.
"""

from collections.abc import Callable, Sequence
from time import monotonic, sleep

from alembic import op
from sqlalchemy import Connection, text

# The key of the context's options with the function that reports progress.
REPORT = "sendback_report"
# It waits for the end of older transactions, without making others wait. Without its client, which
# was killed, it ends.
_SETTINGS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "client_connection_check_interval": "2s",
}


def build_index(name: str, table: str, columns: Sequence[str], where: str | None = None) -> None:
    """Create an index; on PostgreSQL writing to the table continues meanwhile.

    SQLite blocks other writers until it is built (about a second for a million rows).
    """
    connection = op.get_bind()
    condition = None if where is None else text(where)
    if connection.dialect.name != "postgresql":
        op.create_index(name, table, list(columns), sqlite_where=condition, if_not_exists=True)
        return
    connection.commit()
    connection.execution_options(isolation_level="AUTOCOMMIT")
    try:
        _build_concurrently(connection, name, table, columns, condition)
    finally:
        connection.commit()
        connection.execution_options(isolation_level="READ COMMITTED")


def _build_concurrently(
    connection: Connection, name: str, table: str, columns: Sequence[str], condition: object
) -> None:
    for setting, value in _SETTINGS.items():
        connection.execute(text(f"SET {setting} = '{value}'"))
    # A build that was interrupted leaves an index that is updated and never used.
    left = connection.execute(_INVALID, {"name": name}).scalar()
    if left is not None:
        connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
    op.create_index(
        name,
        table,
        list(columns),
        postgresql_where=condition,
        postgresql_concurrently=True,
        if_not_exists=True,
    )
    for setting in _SETTINGS:
        connection.execute(text(f"RESET {setting}"))


_INVALID = text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")


def in_steps(step: Callable[[Connection], int], what: str) -> None:
    """Call `step` in transactions of their own until it returns 0, the number of changed rows.

    It must find the rows that are left by itself. Between the steps the servers write: the pause is
    as long as the step was. `what` describes the rows in the lines of progress.
    """
    connection = op.get_bind()
    report = op.get_context().opts[REPORT]
    connection.commit()
    total = 0
    while True:
        started = monotonic()
        count = step(connection)
        connection.commit()
        if count == 0:
            return
        total += count
        report(f"{total} {what}")
        sleep(monotonic() - started)
