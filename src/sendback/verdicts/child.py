"""The process that authenticates mail: `python -m sendback.verdicts.child OPTIONS`.

It reads mails from its standard input and writes results to its standard output (`frames`). Its
libraries parse hostile text: it has no secrets, opens no listening socket, stores nothing, is
limited in processor time and memory, and can be killed at any moment. It ends when its input ends,
and when its parent dies.
"""

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from sendback.net.resolver import Resolver
from sendback.verdicts.frames import (
    MAILS_AT_ONCE,
    MethodResult,
    Request,
    read_request,
    write_result,
)
from sendback.verdicts.methods import Method, Result, authenticate

_MEMORY_OCTETS = 2**30  # of address space; a process takes 200 to 300 MB of it
_CPU_SECONDS = 30  # without a new mail; a mail of 40 MB with five signatures takes 0.5
_NICENESS = 5  # receiving mail comes first
_PR_SET_PDEATHSIG = 1  # prctl(2)
_MODULES = ("authentication", "dkim", "spf")


class _Worker:
    """Authenticates several mails at once."""

    def __init__(self, resolver: Resolver, answers: int) -> None:
        """`answers` is the file descriptor for results."""
        self._resolver = resolver
        self._answers = answers
        self._writing = threading.Lock()

    def run(self, requests: BinaryIO) -> None:
        """Work until the input ends."""
        pool = ThreadPoolExecutor(MAILS_AT_ONCE, "mail")
        while (request := read_request(requests)) is not None:
            _limit_cpu()
            pool.submit(self._work, request)

    def _work(self, request: Request) -> None:
        def report(method: Method, result: Result, notes: list[str]) -> None:
            self._write(write_result(MethodResult(request.number, method, result, tuple(notes))))

        authenticate(request.mail, self._resolver, request.seconds, request.known, report)

    def _write(self, line: bytes) -> None:
        with self._writing:
            while line:
                line = line[os.write(self._answers, line) :]


def main() -> None:
    """OPTIONS is JSON: `parent`, a process ID, and `servers`, DNS servers with ports or null."""
    options = json.loads(sys.argv[1])
    _end_with(options["parent"])
    _limit()
    # Output of a library must not be read as a result.
    answers = os.dup(1)
    os.dup2(2, 1)
    for module in _MODULES:
        with contextlib.suppress(Exception):  # the method that needs it reports the reason
            importlib.import_module(f"sendback.verdicts.{module}")
    os.write(answers, b"\n")  # ready
    servers = options["servers"]
    resolver = Resolver([(host, port) for host, port in servers] if servers else None)
    _Worker(resolver, answers).run(sys.stdin.buffer)
    os._exit(0)  # the parent has ended: results have no reader


def _end_with(parent: int) -> None:
    """End with the parent: this signal ends a busy process, the end of the input an idle one."""
    # A terminal's Ctrl-C and a service manager's stop go to the whole group: the parent decides.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)


def _limit() -> None:
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or most > _MEMORY_OCTETS:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_OCTETS, _MEMORY_OCTETS))
    _limit_cpu()


def _limit_cpu() -> None:
    """Extend the limit of processor time; it takes effect if the parent's timeout does not."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(time.process_time()) + _CPU_SECONDS
    if most == resource.RLIM_INFINITY or limit < most:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, most))


if __name__ == "__main__":
    main()
