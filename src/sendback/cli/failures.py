"""What an error means to somebody at a terminal, and the exit code that it ends with."""

import typer

from sendback.config.settings import SettingError

_FORESEEN = {
    "AccountError",
    "RotationError",
    "SchemaError",
    "SecretError",
    "SesError",
    "StoreUnavailableError",
    "WorkerFailedError",
}

FAILED = 1
USAGE = 2


class CommandFailedError(Exception):
    """The command was understood and did not work: exit code 1."""


def explain(error: Exception) -> tuple[str, int] | None:
    """Text and exit code of a foreseen error; None for one that is a fault of ours."""
    if isinstance(error, SettingError):
        return str(error), USAGE
    if isinstance(error, CommandFailedError):
        return str(error), FAILED
    if type(error).__name__ in {"QuestionError", "SetupError"}:
        return str(error), USAGE
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", FAILED
    # By name: importing the store for this would slow every command down.
    if type(error).__name__ in _FORESEEN:
        return str(error), FAILED
    return None


def usage_error(text: str) -> typer.BadParameter:
    """For an argument that the command cannot use: exit code 2."""
    return typer.BadParameter(text)
