"""Functions in processes of their own, and all that they may do wrong."""

import asyncio
import json
import shutil
import time

import pytest

from sendback.actions.aws import AwsClients
from sendback.actions.functions import FunctionCallers
from sendback.actions.local_functions import LocalFunctions
from sendback.net.connector import Connector
from sendback.service.rules.ports import ActionFailedError, UnknownTargetError
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

def environment(event, context):
    return dict(os.environ)

def loud(event, context):
    raise ValueError("\\x1b[2J" * 1_000_000)

def raw(event, context):
    os.write(int(sys.argv[3]), event["octets"].encode("latin-1") + b"\\n")
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


def given(variables):
    """The environment of functions of every account."""

    async def environment(account_id):
        return variables

    return environment


def run(work):
    """Runs `work(functions)` and ends the processes."""

    async def main():
        local = LocalFunctions(given({"EXTRA": "here"}))
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
        return local.process_count

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
        return local.process_count

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


# --- what a function learns of the server ---------------------------------------------------------

SECRETS = {
    "SENDBACK_SECRET": "hunter2",
    "SENDBACK_OUTBOUND": "smtp://u:hunter2@relay.example",
    "SENDBACK_DATABASE": "postgresql://u:hunter2@db/x",
    "AWS_ACCESS_KEY_ID": "hunter2",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "AWS_SESSION_TOKEN": "hunter2",
    "AWS_PROFILE": "hunter2",
    "HTTPS_PROXY": "http://u:hunter2@proxy.example",
    "GITHUB_TOKEN": "hunter2",
    "NODE_AUTH_TOKEN": "hunter2",
    "PGPASSWORD": "hunter2",
    "EXTRA": "hunter2",
}


def environment_of(target, monkeypatch, names=(), additional=None):
    for name, value in {**SECRETS, "LC_TIME": "C", "TZ": "Asia/Tokyo"}.items():
        monkeypatch.setenv(name, value)

    async def main():
        functions = LocalFunctions(given(additional or {}), names)
        try:
            return json.loads(await functions.invoke(target, ARN, "{}", 20))
        finally:
            await functions.close()

    return asyncio.run(main())


def test_a_function_gets_no_secret_of_the_server(target, monkeypatch):
    found = environment_of(target("python", "environment"), monkeypatch)
    assert "hunter2" not in str(found)
    assert {"PATH", "HOME", "LC_TIME", "TZ", "AWS_LAMBDA_FUNCTION_NAME"} <= found.keys()
    assert (found["TZ"], found["LC_TIME"]) == ("Asia/Tokyo", "C")


def test_named_variables_are_passed_on_and_win(target, monkeypatch):
    names = ("EXTRA", "AWS_ACCESS_KEY_ID", "NOT_SET")
    additional = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    found = environment_of(target("python", "environment"), monkeypatch, names, additional)
    assert (found["EXTRA"], found["AWS_ACCESS_KEY_ID"]) == ("hunter2", "hunter2")
    assert found["AWS_SECRET_ACCESS_KEY"] == "test"
    assert "NOT_SET" not in found
    assert "SENDBACK_SECRET" not in found


@pytest.mark.parametrize("octets", ["5", "[]", "no json", "\xff", "[" * 100_000, "", "null"])
def test_a_function_that_writes_where_its_runner_answers(target, octets):
    async def main():
        functions = LocalFunctions(given({}))
        try:
            event = json.dumps({"octets": octets})
            with pytest.raises(ActionFailedError, match="no JSON of its runner"):
                await functions.invoke(target("python", "raw"), ARN, event, 20)
            # The next event gets a process of its own, not the rest of this one's answers.
            answer = json.loads(await functions.invoke(target("python", "echo"), ARN, "{}", 20))
            assert answer["event"] == {}
        finally:
            await functions.close()

    asyncio.run(main())


def test_what_a_function_says_is_cut_and_visible(target):
    async def main():
        functions = LocalFunctions(given({}))
        try:
            await functions.invoke(target("python", "loud"), ARN, "{}", 20)
        finally:
            await functions.close()

    with pytest.raises(ActionFailedError) as raised:
        asyncio.run(main())
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) <= 1000
