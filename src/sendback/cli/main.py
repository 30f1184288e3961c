"""The command line: the tree of commands, exit codes and error messages.

Exit codes: 0 success, 1 failure, 2 invalid command or setting, 130 interrupted.
"""

import contextlib
import io
import os
import signal
import sys
import traceback
from typing import Annotated, Any

import typer

from sendback import __version__
from sendback.cli import (
    accounts,
    bounce,
    completion,
    config,
    database,
    demo,
    doctor,
    dsn,
    faults,
    identities,
    inject,
    keys,
    messages,
    outbox,
    policies,
    rules,
    serve,
    tail,
)
from sendback.cli.output import say

app = typer.Typer(
    name="sendback",
    help=(
        "Receives mail by SMTP and bounces it the way Amazon SES does.\n\n"
        "Start with `sendback demo` (one mail, one SendBounce, one bounce, all on this machine), "
        "then `sendback serve`."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich takes 0.2 s
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("bounce")(bounce.bounce)
app.command("inject")(inject.inject)
app.command("tail")(tail.tail)
app.command("doctor")(doctor.doctor)
app.command("completion")(completion.completion)
app.add_typer(messages.app, name="messages")
app.add_typer(outbox.app, name="outbox")
app.add_typer(rules.app, name="rules")
app.add_typer(identities.app, name="identities")
app.add_typer(policies.app, name="policies")
app.add_typer(accounts.app, name="accounts")
app.add_typer(accounts.users, name="users")
app.add_typer(keys.app, name="keys")
app.add_typer(dsn.app, name="dsn")
app.add_typer(faults.app, name="faults")
app.add_typer(config.app, name="config")
app.add_typer(database.app, name="db")


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"sendback {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Receives mail by SMTP and bounces it the way Amazon SES does."""


_FAILED = 1
_INTERRUPTED = 130
# click's class, or Typer's own copy of it, depending on Typer's version.
_ClickError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main() -> None:
    """Run the command and exit with its code.

    Expected errors are printed without a traceback, and control characters are escaped.
    """
    _prepare_streams()
    code = _INTERRUPTED
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = _flushed(_run())
    except KeyboardInterrupt:
        code = _INTERRUPTED
    finally:
        # A signal must not interrupt the exit of the interpreter.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _prepare_streams() -> None:
    """Open a closed stream on /dev/null, and escape characters that cannot be encoded."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run() -> int:
    """Run the command; return the exit code."""
    try:
        if completion.VARIABLE in os.environ:
            completion.prepare()
        result = app(standalone_mode=False)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else _FAILED
    except typer.Abort:
        return _INTERRUPTED
    except _ClickError as error:
        return _usage(error)
    except BrokenPipeError:
        return _pipe_closed()
    except Exception as error:  # noqa: BLE001 - every error is printed here
        return _failed(error)
    return result if isinstance(result, int) else 0


def _usage(error: Any) -> int:
    text = io.StringIO()
    error.show(file=text)
    say(text.getvalue().rstrip("\n"), err=True)
    return int(error.exit_code)


def _failed(error: Exception) -> int:
    """Print an expected error, or the traceback of a bug in Sendback; return the exit code."""
    from sendback.cli.failures import explain

    explanation = explain(error)
    if explanation is not None:
        text, code = explanation
        say(f"sendback: {text}", err=True)
        return code
    if isinstance(error, OSError):
        about = f"{error.filename}: " if error.filename else ""
        say(f"sendback: {about}{error.strerror or error}", err=True)
        return _FAILED
    say("".join(traceback.format_exception(error)).rstrip("\n"), err=True)
    say("sendback: this is a bug in Sendback; please report it with the lines above", err=True)
    return _FAILED


def _flushed(code: int) -> int:
    """Flush standard output; return the exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _pipe_closed()
    except OSError as error:
        _discard_output()
        say(f"sendback: the output could not be written: {error.strerror}", err=True)
        return _FAILED
    return code


def _pipe_closed() -> int:
    """Return the exit code when the reader closed the pipe, as `head` does. Print nothing."""
    _discard_output()
    return _FAILED


def _discard_output() -> None:
    """Discard the buffered output, which Python would write at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
