"""Functions in processes of their own: `python:FILE.py:FUNCTION`, `node:FILE.mjs:EXPORT`.

A process is kept warm, as in Lambda, and handles one event at a time. It reads a line of JSON from
its standard input and writes the result as a line to a separate pipe, so that output that the
function prints goes to the log. A process that exceeds its timeout, returns too much or dies is
killed; the next event starts a new one.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sendback.service.rules.ports import ActionFailedError, UnknownTargetError

log = logging.getLogger(__name__)

_RUNNERS = Path(__file__).parent / "runners"
_MAX_ANSWER = 6 * 2**20
_MAX_PROCESSES = 4  # a function


@dataclass(frozen=True, slots=True)
class LocalTarget:
    """A handler in a file."""

    language: str
    file: Path
    handler: str

    @property
    def command(self) -> list[str]:
        """The command, without its last argument: the descriptor of the result pipe."""
        if self.language == "python":
            return [sys.executable, str(_RUNNERS / "run_python.py"), str(self.file), self.handler]
        return ["node", str(_RUNNERS / "run_node.mjs"), str(self.file), self.handler]


def is_local(target: str) -> bool:
    """Whether the target is a handler in a local file."""
    return target.partition(":")[0] in {"python", "node"}


def parse_local(target: str) -> LocalTarget:
    """Return the parts of a target. Raises `UnknownTargetError`, which has the syntax."""
    language, _, rest = target.partition(":")
    file, colon, handler = rest.rpartition(":")
    if not colon or not file or not handler:
        raise UnknownTargetError(
            f"{target!r}: write python:FILE.py:FUNCTION or node:FILE.mjs:EXPORT", final=True
        )
    return LocalTarget(language, Path(file), handler)


@dataclass
class _Pool:
    """The idle processes of a function, and the limit of its processes."""

    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MAX_PROCESSES))
    idle: list["_Process"] = field(default_factory=list)


class LocalFunctions:
    """All local functions, and their processes."""

    def __init__(
        self,
        environment: Callable[[str], Awaitable[Mapping[str, str]]],
        inherited: Sequence[str] = (),
    ) -> None:
        """`environment` returns the additional variables of an account's functions.

        It is called for each event: a process that has another environment is replaced.
        `inherited` names variables that they inherit in addition to `_INHERITED`.
        """
        self._environment = environment
        self._named = tuple(inherited)
        self._pools: dict[str, _Pool] = {}
        self._all: set[_Process] = set()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def process_count(self) -> int:
        """The number of processes that run or are kept for the next event."""
        return len(self._all)

    def check(self, target: str) -> None:
        """Raise `UnknownTargetError` unless the file exists and its language can be run."""
        local = parse_local(target)
        if not local.file.is_file():
            raise UnknownTargetError(f"there is no file {local.file}")
        if local.language == "node" and shutil.which("node") is None:
            raise UnknownTargetError("node is not installed")

    async def invoke(self, target: str, arn: str, event: str, seconds: float) -> bytes:
        """Run the handler and return its result as JSON. Raises `ActionFailedError`."""
        local = parse_local(target)
        # Functions of two accounts share no process: each has its own account's credentials.
        pool = self._pools.setdefault(f"{_account(arn)} {target}", _Pool())
        async with pool.places:
            environment = await self._environment_of(arn)
            process = self._idle(pool, environment) or await self._start(local, environment)
            try:
                async with asyncio.timeout(seconds):
                    answer = await process.call(event, arn, seconds)
            except TimeoutError:
                self._forget(process)
                raise ActionFailedError(
                    f"the function did not answer within {seconds:g} s"
                ) from None
            except BaseException:
                self._forget(process)
                raise
            pool.idle.append(process)
        if "error" in answer:
            raise ActionFailedError(f"the function failed: {answer['error']}")
        return json.dumps(answer.get("result")).encode()

    async def close(self) -> None:
        """End all processes; the next event of a function starts a new one."""
        self._pools.clear()
        for process in list(self._all):
            self._forget(process)
        await asyncio.gather(*self._ending)

    async def _environment_of(self, arn: str) -> Mapping[str, str]:
        additional = {
            "AWS_LAMBDA_FUNCTION_NAME": arn.split(":")[6],
            **await self._environment(_account(arn)),
        }
        return {**_variables(_INHERITED), **additional, **_variables(self._named)}

    def _idle(self, pool: _Pool, environment: Mapping[str, str]) -> "_Process | None":
        """Return an idle process with this environment; end those with another."""
        while pool.idle:
            process = pool.idle.pop()
            if process.environment == environment:
                return process
            self._forget(process)
        return None

    async def _start(self, local: LocalTarget, environment: Mapping[str, str]) -> "_Process":
        try:
            process = await _Process.start(local, environment)
        except OSError as error:
            raise ActionFailedError(f"the function could not be started: {error}") from error
        self._all.add(process)
        return process

    def _forget(self, process: "_Process") -> None:
        self._all.discard(process)
        ending = asyncio.create_task(process.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


def _account(arn: str) -> str:
    return arn.split(":")[4]


# What a program needs to run in this machine's language, time zone and folders, to find its
# libraries, and to check certificates. Nothing else of this process's environment: there are the
# installation's secret, the relay's password (SENDBACK_…), the operator's AWS credentials, tokens
# of whatever runs this server. Proxies are not here because their URLs may hold a password.
_INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TZDIR",
    "TMPDIR", "TMP", "TEMP", "LD_LIBRARY_PATH", "VIRTUAL_ENV",
    "PYTHONPATH", "PYTHONHOME", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
    "NODE_PATH", "NODE_OPTIONS", "NODE_ENV", "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE",
    "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME",
)  # fmt: skip


def _variables(names: Sequence[str]) -> dict[str, str]:
    """Return those of this process's environment variables."""
    return {name: os.environ[name] for name in names if name in os.environ}


def _answer(line: bytes) -> dict[str, object]:
    """Return what the runner wrote. Raises `ActionFailedError`: a function can write there too."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ActionFailedError("the function answered what is no JSON of its runner")
    return answer


class _Process:
    """One process that runs a handler."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        answers: asyncio.StreamReader,
        pipe: asyncio.ReadTransport,
        environment: Mapping[str, str],
    ) -> None:
        self.environment = environment
        self._process = process
        self._answers = answers
        self._pipe = pipe

    @classmethod
    async def start(cls, local: LocalTarget, environment: Mapping[str, str]) -> "_Process":
        """Raises `OSError`."""
        read_end, write_end = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *local.command,
                str(write_end),
                stdin=asyncio.subprocess.PIPE,
                stdout=sys.stderr.fileno() if sys.stderr else asyncio.subprocess.DEVNULL,
                pass_fds=(write_end,),
                cwd=local.file.parent,
                env=environment,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        answers = asyncio.StreamReader(limit=_MAX_ANSWER)
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(read_end, "rb")
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(answers), pipe
        )
        return cls(process, answers, transport, environment)

    async def call(self, event: str, arn: str, seconds: float) -> dict[str, object]:
        """Handle one event and return the runner's line. Raises `ActionFailedError`."""
        request = json.dumps({"event": json.loads(event), "arn": arn, "seconds": seconds})
        if self._process.stdin is None:
            raise ActionFailedError("the function has no input")
        try:
            self._process.stdin.write(request.encode() + b"\n")
            await self._process.stdin.drain()
            line = await self._answers.readline()
        except (ConnectionError, OSError) as error:
            raise ActionFailedError(f"the function's process is gone: {error}") from error
        except ValueError:
            raise ActionFailedError("the function answered more than 6 MiB") from None
        if not line.endswith(b"\n"):
            code = await self._process.wait()
            raise ActionFailedError(f"the function's process ended with status {code}")
        return _answer(line)

    async def end(self) -> None:
        """Kill it and close its pipes."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._pipe.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
