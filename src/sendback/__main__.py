"""The `sendback` command; also `python -m sendback`."""

import os
import signal

INTERRUPTED = 130  # 128 and the number of SIGINT, as shells count


def end_at_once(_number: int, _frame: object) -> None:
    """End the process without a traceback: for Ctrl-C while no work is in progress."""
    os._exit(INTERRUPTED)


def main() -> None:
    """Run the command. Ctrl-C prints no traceback, even while modules are imported."""
    # An ignored SIGINT (nohup, a shell's background job) stays ignored.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end_at_once)
    from sendback.cli.main import main as run  # noqa: PLC0415 - takes 0.2 s

    run()


if __name__ == "__main__":
    main()
