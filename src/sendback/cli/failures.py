"""Error messages of the command line, and its exit codes."""

import typer

from sendback.errors import InvalidInputError, SendbackError

FAILED = 1
USAGE = 2


class CommandFailedError(SendbackError):
    """The command was valid and failed: exit code 1."""


def explain(error: Exception) -> tuple[str, int] | None:
    """Return the text and exit code of an expected error, or None for a bug in Sendback."""
    if isinstance(error, InvalidInputError):
        return str(error), USAGE
    if isinstance(error, SendbackError):
        return str(error), FAILED
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", FAILED
    return None


def usage_error(text: str) -> typer.BadParameter:
    """Return the error for an argument that the command cannot use: exit code 2."""
    return typer.BadParameter(text)
