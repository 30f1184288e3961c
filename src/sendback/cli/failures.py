"""Error messages of the command line, and its exit codes."""

import typer

from sendback.errors import InvalidInputError, SendbackError

FAILED = 1
USAGE = 2
# PostgreSQL's codes of an undefined table and column.
_UNDEFINED = frozenset({"42P01", "42703"})


class CommandFailedError(SendbackError):
    """The command was valid and failed: exit code 1."""


def explain(error: Exception) -> tuple[str, int] | None:
    """Return the text and exit code of an expected error, or None for a bug in Sendback."""
    if isinstance(error, InvalidInputError):
        return str(error), USAGE
    if isinstance(error, SendbackError):
        return str(error), FAILED
    missing = _missing_in_database(error)
    if missing:
        text = "it is damaged or was changed: stop all servers and put a copy in its place"
        return f"the database does not have what this version needs ({missing}): {text}", FAILED
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", FAILED
    return None


def _missing_in_database(error: Exception) -> str | None:
    """Return the database's own text if a table or a column is missing, else None."""
    text = str(getattr(error, "orig", ""))
    code = getattr(getattr(error, "orig", None), "sqlstate", None)
    is_missing = code in _UNDEFINED or text.startswith(("no such column", "no such table"))
    return text.splitlines()[0] if is_missing else None


def usage_error(text: str) -> typer.BadParameter:
    """Return the error for an argument that the command cannot use: exit code 2."""
    return typer.BadParameter(text)
