"""Functions in processes of their own, and all that they may do wrong."""

import asyncio
import json
import shutil
import time

import pytest

from sendback.actions.aws import AwsClients
from sendback.actions.functions import FunctionCallers
from sendback.actions.local_functions import LocalFunctions
from sendback.connector import Connector
from sendback.service.ports import ActionFailedError, UnknownTargetError
from tests.conftest import need
from tests.partners.webhook import Webhook

ARN = "arn:aws:lambda:us-east-1:000000000000:function:check"

PYTHON = """
import json, os, sys, time

calls = 0

def echo(event, context):
    global calls
    calls += 1
    print("this is no answer")
    return {
        "event": event, "calls": calls, "name": context.function_name,
        "left": context.get_remaining_time_in_millis(), "extra": os.environ.get("EXTRA"),
        "folder": os.getcwd(),
    }

def fail(event, context):
    raise ValueError("the function's own trouble")

def leave(event, context):
    sys.exit(3)

def die(event, context):
    os._exit(3)

def hang(event, context):
    time.sleep(60)

def much(event, context):
    return "x" * 10_000_000

def nothing(event, context):
    pass

def unjsonable(event, context):
    return object()
"""
NODE = """
export async function echo(event, context) {
  console.log("this is no answer");
  return { event, name: context.functionName, left: context.getRemainingTimeInMillis() };
}
export function callback(event, context, done) { setTimeout(() => done(null, { event }), 5); }
export function badCallback(event, context, done) { done(new Error("its own trouble")); }
export async function fail() { throw new Error("its own trouble"); }
export async function much() { return "x".repeat(10_000_000); }
export async function hang() { await new Promise((resolve) => setTimeout(resolve, 60_000)); }
export function die() { process.exit(3); }
export function nothing() {}
"""


@pytest.fixture
def target(tmp_path):
    (tmp_path / "handlers.py").write_text(PYTHON)
    (tmp_path / "handlers.mjs").write_text(NODE)

    def name(language, handler):
        if language == "node":
            need("node", available=bool(shutil.which("node")))
        ending = "py" if language == "python" else "mjs"
        return f"{language}:{tmp_path}/handlers.{ending}:{handler}"

    return name


def run(work):
    """Runs `work(functions)` and ends the processes."""

    async def main():
        local = LocalFunctions(lambda account: {"EXTRA": "here", "ACCOUNT": account})
        connector = Connector(allow_private=True)
        try:
            return await work(FunctionCallers(AwsClients("us-east-1"), connector, local), local)
        finally:
            await local.close()
            await connector.close()

    return asyncio.run(main())


def invoke(target, event=None, *, wait=True):
    text = json.dumps(event if event is not None else {"a": "ä"})
    return run(lambda functions, _: functions.invoke(target, ARN, text, wait=wait))


def failure(target, **options):
    with pytest.raises(ActionFailedError) as raised:
        invoke(target, **options)
    assert not raised.value.final
    return str(raised.value)


def test_a_python_function(target, tmp_path):
    answer = invoke(target("python", "echo"))
    assert answer["event"] == {"a": "ä"}
    assert answer["name"] == "check"
    assert answer["extra"] == "here"
    assert answer["folder"] == str(tmp_path)
    assert 20_000 < answer["left"] <= 30_000


@pytest.mark.parametrize("handler", ["echo", "callback"])
def test_a_node_function(target, handler):
    assert invoke(target("node", handler))["event"] == {"a": "ä"}


@pytest.mark.parametrize("language", ["python", "node"])
def test_a_function_that_answers_nothing(target, language):
    assert invoke(target(language, "nothing")) is None


def test_a_process_is_kept_warm(target):
    async def work(functions, _):
        name = target("python", "echo")
        return [(await functions.invoke(name, ARN, "{}", wait=True))["calls"] for _ in range(3)]

    assert run(work) == [1, 2, 3]


def test_four_run_side_by_side(tmp_path):
    file = tmp_path / "slow.py"
    file.write_text("import time\ndef wait(event, context):\n    time.sleep(0.5)\n")

    async def work(functions, local):
        name = f"python:{file}:wait"
        await asyncio.gather(*(functions.invoke(name, ARN, "{}", wait=True) for _ in range(8)))
        return len(local._all)

    started = time.monotonic()
    assert run(work) == 4
    assert time.monotonic() - started < 4.0 * 0.5 + 3


@pytest.mark.parametrize("language", ["python", "node"])
@pytest.mark.parametrize(
    ("handler", "text"),
    [
        ("fail", "own trouble"),
        ("die", "ended with status 3"),
        ("much", "more than 6 MiB"),
        ("absent", "absent"),
    ],
)
def test_what_a_function_does_wrong(target, language, handler, text):
    assert text in failure(target(language, handler))


@pytest.mark.parametrize(
    ("language", "handler", "text"),
    [
        ("python", "leave", "SystemExit: 3"),
        ("python", "unjsonable", "not JSON serializable"),
        ("node", "badCallback", "own trouble"),
    ],
)
def test_what_else_it_does_wrong(target, language, handler, text):
    assert text in failure(target(language, handler))


@pytest.mark.parametrize("language", ["python", "node"])
def test_a_function_that_hangs_is_killed(target, language):
    async def work(_, local):
        with pytest.raises(ActionFailedError, match="did not answer within"):
            await local.invoke(target(language, "hang"), ARN, "{}", 0.5)
        return len(local._all)

    assert run(work) == 0


def test_the_next_event_gets_a_new_process(target):
    async def work(functions, local):
        with pytest.raises(ActionFailedError):
            await functions.invoke(target("python", "die"), ARN, "{}", wait=True)
        return await functions.invoke(target("python", "echo"), ARN, "{}", wait=True)

    assert run(work)["calls"] == 1


def test_a_file_that_cannot_be_loaded(tmp_path):
    (tmp_path / "broken.py").write_text("this is no Python")
    assert "SyntaxError" in failure(f"python:{tmp_path}/broken.py:handler")


@pytest.mark.parametrize(
    "target", ["python:/nowhere/x.py:f", "python:x", "node::", "nonsense", "directory:/tmp"]
)
def test_what_is_no_function(target):
    with pytest.raises(UnknownTargetError):
        run(lambda functions, _: functions.check(target, ARN))


# --- by HTTP -----------------------------------------------------------------------------------


def test_a_function_by_http():
    with Webhook((200, b'{"disposition": "STOP_RULE"}', 0)) as hook:
        assert invoke(hook.url, {"Records": []}) == {"disposition": "STOP_RULE"}
        headers, body = hook.next()
    assert json.loads(body) == {"Records": []}
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((500, b"", 0.0), "answered 500"),
        ((302, b"", 0.0), "answered 302"),
        ((200, b"nonsense", 0.0), "no JSON"),
        ((200, b"[" * 100_000, 0.0), "no JSON"),
        ((200, b"x" * 10_000_000, 0.0), "more than 6 MiB"),
    ],
)
def test_what_a_function_by_http_does_wrong(answer, text):
    with Webhook(answer) as hook:
        assert text in failure(hook.url)
        assert hook.count == 1  # a redirect is not followed


def test_an_empty_answer_is_none():
    with Webhook() as hook:
        assert invoke(hook.url) is None
