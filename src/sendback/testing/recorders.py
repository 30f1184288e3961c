"""Functions, topics and buckets of tests: they run in this process and record what they get.

`TestingPorts` puts them before the real implementations: a target `testing:` is looked up by its
name among those of the test, every other target goes on to the real one.
"""

import asyncio
import inspect
import json
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sendback.actions.functions import SECONDS
from sendback.actions.runners.run_python import Context
from sendback.aws.object_keys import RESERVED_FOLDER
from sendback.service.rules.ports import (
    ActionFailedError,
    Functions,
    Topics,
    UnknownTargetError,
)
from sendback.service.rules.targets import Ports
from sendback.testing.collection import WAIT_SECONDS, Collection, wanted

TARGET = "testing:"
Handler = Callable[[Any, Any], Any]
JOIN_SECONDS = 5.0


@dataclass(frozen=True)
class Call:
    """A call of a function: its event, and its result or the exception that it raised."""

    event: dict[str, Any]
    result: Any = None
    error: BaseException | None = None

    @property
    def message_id(self) -> str:
        """The ID of the message that the event is about."""
        return str(self.event["Records"][0]["ses"]["mail"]["messageId"])


class Function(Collection[Call]):
    """A Lambda function of the test: its calls that have ended, in order."""

    def __init__(self, arn: str, handler: Handler) -> None:
        super().__init__(f"calls of {arn}", lambda: list(self._calls), _describe_call)
        self.arn = arn
        self.handler = handler
        self._calls: list[Call] = []

    @property
    def action(self) -> dict[str, Any]:
        """The action of a rule that calls it, without waiting for its result."""
        return {"LambdaAction": {"FunctionArn": self.arn}}

    def wait_for(self, *, original: str | None = None, timeout: float = WAIT_SECONDS) -> Call:
        """Return the first call, or the first about that received message.

        Raise `NotArrivedError` after `timeout` seconds.
        """
        what = wanted("call", original=original)
        return self._wait(lambda call: original in {None, call.message_id}, what, timeout)

    def run(self, event: str) -> Any:
        """Call the handler with an event in JSON, and record the call. Raise what it raises."""
        try:
            result = self.handler(json.loads(event), Context(self.arn, SECONDS))
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
            answer = json.loads(json.dumps(result))
        except BaseException as error:
            self._calls.append(Call(json.loads(event), error=error))
            raise
        self._calls.append(Call(json.loads(event), answer))
        return answer


@dataclass(frozen=True)
class Notification:
    """What a rule published to a topic: `message` is the parsed JSON."""

    topic_arn: str
    subject: str
    message: dict[str, Any]

    @property
    def message_id(self) -> str:
        """The ID of the received message."""
        return str(self.message["mail"]["messageId"])


class Topic(Collection[Notification]):
    """An SNS topic of the test: what was published to it, in order."""

    def __init__(self, arn: str) -> None:
        super().__init__(f"notifications of {arn}", lambda: list(self._published), _describe_notice)
        self.arn = arn
        self._published: list[Notification] = []

    @property
    def action(self) -> dict[str, Any]:
        """The action of a rule that publishes to it."""
        return {"SNSAction": {"TopicArn": self.arn}}

    def wait_for(
        self, *, original: str | None = None, timeout: float = WAIT_SECONDS
    ) -> Notification:
        """Return the first notification, or the first about that received message.

        Raise `NotArrivedError` after `timeout` seconds.
        """
        what = wanted("notification", original=original)
        return self._wait(lambda notice: original in {None, notice.message_id}, what, timeout)

    def add(self, subject: str, message: str) -> None:
        """Record a notification."""
        self._published.append(Notification(self.arn, subject, json.loads(message)))


@dataclass(frozen=True)
class StoredObject:
    """An object in a bucket."""

    key: str
    content: bytes


class Bucket(Collection[StoredObject]):
    """An S3 bucket of the test: a directory with an object in each file, the oldest first."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(f"objects of {name}", self._read, lambda found: found.key)
        self.name = name
        self.directory = directory

    @property
    def action(self) -> dict[str, Any]:
        """The action of a rule that stores in it."""
        return {"S3Action": {"BucketName": self.name}}

    def wait_for(
        self,
        *,
        key: str | None = None,
        original: str | None = None,
        timeout: float = WAIT_SECONDS,
    ) -> StoredObject:
        """Return the first object, the one with that key, or with that received message.

        Raise `NotArrivedError` after `timeout` seconds.
        """

        def matches(found: StoredObject) -> bool:
            of_message = original is None or found.key.rpartition("/")[2] == original
            return key in {None, found.key} and of_message

        return self._wait(matches, wanted("object", key=key, original=original), timeout)

    def _key(self, item: StoredObject) -> object:
        return item.key

    def _read(self) -> list[StoredObject]:
        files = [
            path
            for path in self.directory.rglob("*")
            if path.is_file() and not _is_hidden(path.relative_to(self.directory))
        ]
        files.sort(key=lambda path: (path.stat().st_mtime_ns, path))
        return [
            StoredObject(path.relative_to(self.directory).as_posix(), path.read_bytes())
            for path in files
        ]


@dataclass
class Recorders:
    """The functions and topics of a test, by ARN, and the threads in which functions run."""

    functions: dict[str, Function] = field(default_factory=dict)
    topics: dict[str, Topic] = field(default_factory=dict)
    threads: set[threading.Thread] = field(default_factory=set)

    def clear(self) -> None:
        """Forget all functions and topics."""
        self.functions.clear()
        self.topics.clear()

    def join(self) -> Sequence[str]:
        """Wait a moment for functions that run; return the names of those that still do."""
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in list(self.threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        return sorted(thread.name for thread in self.threads if thread.is_alive())


def with_recorders(ports: Ports, recorders: Recorders) -> Ports:
    """Return the ports with the recorders before them."""
    return Ports(
        objects=ports.objects,
        topics=_Topics(ports.topics, recorders.topics),
        functions=_Functions(ports.functions, recorders),
        mailboxes=ports.mailboxes,
    )


class _Topics:
    """Implements `ports.Topics`."""

    def __init__(self, others: Topics, topics: Mapping[str, Topic]) -> None:
        self._others = others
        self._topics = topics

    async def check(self, target: str, topic_arn: str) -> None:
        if target == TARGET:
            _find(self._topics, topic_arn)
        else:
            await self._others.check(target, topic_arn)

    async def publish(self, target: str, topic_arn: str, subject: str, message: str) -> str:
        if target != TARGET:
            return await self._others.publish(target, topic_arn, subject, message)
        _find(self._topics, topic_arn).add(subject, message)
        return "recorded by the test"


class _Functions:
    """Implements `ports.Functions`."""

    def __init__(self, others: Functions, recorders: Recorders) -> None:
        self._others = others
        self._recorders = recorders

    async def check(self, target: str, function_arn: str) -> None:
        if target == TARGET:
            _find(self._recorders.functions, function_arn)
        else:
            await self._others.check(target, function_arn)

    async def invoke(self, target: str, function_arn: str, event: str, *, wait: bool) -> object:
        if target != TARGET:
            return await self._others.invoke(target, function_arn, event, wait=wait)
        function = _find(self._recorders.functions, function_arn)
        try:
            async with asyncio.timeout(SECONDS):
                return await self._run(function, event)
        except TimeoutError:
            raise ActionFailedError(f"the function did not end in {SECONDS:g} s") from None

    async def _run(self, function: Function, event: str) -> object:
        """Run the function in a thread of its own: it may call this server."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[object] = loop.create_future()

        def settle(result: object, error: ActionFailedError | None) -> None:
            if ended.done():
                return
            if error is None:
                ended.set_result(result)
            else:
                ended.set_exception(error)

        def work() -> None:
            result, failure = None, None
            try:
                result = function.run(event)
            except BaseException as error:  # noqa: BLE001 - a handler may raise what it likes
                traceback.print_exc()
                failure = ActionFailedError(f"the function raised {error!r}")
            self._recorders.threads.discard(threading.current_thread())
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, failure)

        thread = threading.Thread(target=work, name=function.arn, daemon=True)
        self._recorders.threads.add(thread)
        thread.start()
        return await ended


def _is_hidden(path: Path) -> bool:
    """Whether the file is no object: a partial upload, or in the folder with their metadata."""
    return path.name.startswith(".") or path.parts[0] == RESERVED_FOLDER


def _find(found: Mapping[str, Any], arn: str) -> Any:
    if arn not in found:
        raise UnknownTargetError(f"the test has not made {arn}", final=True)
    return found[arn]


def _describe_call(call: Call) -> str:
    outcome = f"raised {call.error!r}" if call.error else f"returned {call.result!r}"
    return f"about {call.message_id}: {outcome}"


def _describe_notice(notice: Notification) -> str:
    return f"about {notice.message_id}: {notice.subject}"
