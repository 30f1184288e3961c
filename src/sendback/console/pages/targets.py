"""Targets of rules: what buckets, topics, functions and mailboxes are; export of the setup.

A target can be a file of the server or a program that it runs, so only the operator changes them.
"""

import json
import time
from pathlib import Path

from starlette.responses import Response

from sendback.console.call import Page, PageCall
from sendback.console.errors import PageError
from sendback.console.forms import Form
from sendback.service.rules.content import Content
from sendback.service.rules.ports import ActionFailedError
from sendback.service.rules.setup_export import setup_text
from sendback.service.rules.setup_file import TABLES, SetupError, parse_setup
from sendback.service.rules.targets import BUCKET, FUNCTION, MAILBOX, TOPIC
from sendback.store.identities.identities import ListIdentities
from sendback.store.rules.targets import DeleteTarget, ListTargets, PutTargets

_TEST_MAIL = b"From: console@sendback.invalid\r\nSubject: Test of the console\r\n\r\nA test.\r\n"
_MAX_IDENTITIES = 10_000
_FOLDER = Path.cwd()  # paths are relative to where the server was started


async def list_targets(call: PageCall) -> Response:
    """Show the targets."""
    return await _page(call, Form())


async def change(call: PageCall) -> Response:
    """Add, remove or test a target."""
    kind, name, what = call.form.text("kind"), call.form.text("name"), call.form.text("do")
    if kind not in TABLES:
        raise PageError(400, "There is no such kind", f"Kinds are {', '.join(TABLES)}.")
    if what == "test":
        return await _page(call, Form(), tested=await _test(call, kind, name))
    if what == "delete":
        await call.services.store.write(DeleteTarget(call.account_id, kind, name))
        return call.go("/rules/targets", note=f"The target of {kind} {name} is removed.")
    content = {TABLES[kind]: {name: call.form.text("target")}}
    try:
        setup = parse_setup(content, _FOLDER)
    except SetupError as error:
        return await _page(call, call.form.with_errors({"target": str(error)}), status=400)
    await call.services.store.write(PutTargets(call.account_id, setup.targets))
    return call.go("/rules/targets", note=f"The target of {kind} {name} is changed.")


async def export(call: PageCall) -> Response:
    """Return the setup of the account as TOML."""
    text = await _setup(call)
    if call.text("download"):
        headers = {"Content-Disposition": 'attachment; filename="sendback-rules.toml"'}
        return Response(text, headers=headers, media_type="application/toml")
    return call.page("rules/export.html", text=text)


async def _setup(call: PageCall) -> str:
    services, account_id = call.services, call.account_id
    rule_sets = {}
    token: str | None = None
    while True:
        page = await services.rule_sets.list(account_id, token)
        for name, _ in page.rule_sets:
            rule_sets[name] = (await services.rule_sets.describe(account_id, name)).rules
        token = page.next_token
        if token is None:
            break
    active = await services.rule_sets.describe_active(account_id)
    found = await services.store.read(ListIdentities(account_id, None, "", _MAX_IDENTITIES))
    return setup_text(
        identities=[entry.identity for entry in found],
        rule_sets=rule_sets,
        active_rule_set=active.name if active else None,
        filters=await services.filters.list(account_id),
        targets=await services.store.read(ListTargets(account_id)),
    )


async def _page(
    call: PageCall, form: Form, *, tested: dict[str, object] | None = None, status: int = 200
) -> Response:
    found = await call.services.store.read(ListTargets(call.account_id))
    return call.page(
        "rules/targets.html",
        status,
        targets=[{"kind": kind, "name": name, "target": t} for (kind, name), t in found.items()],
        kinds=[(kind, kind) for kind in TABLES],
        form=form,
        tested=tested,
    )


async def _test(call: PageCall, kind: str, name: str) -> dict[str, object]:
    """Send a test event to a target; return what happened."""
    started = time.monotonic()
    try:
        text, is_good = await _send(call, kind, name), True
    except ActionFailedError as error:
        text, is_good = str(error), False
    milliseconds = (time.monotonic() - started) * 1000
    return {"name": name, "text": text, "is_good": is_good, "milliseconds": milliseconds}


async def _send(call: PageCall, kind: str, name: str) -> str:
    """Raise `ActionFailedError`."""
    ports = call.services.ports()
    target = await call.services.targets.find(call.account_id, kind, name)
    if kind == TOPIC:
        text = json.dumps({"notificationType": "Test", "text": "a test of the console"})
        return await ports.topics.publish(target, name, "Test of the console", text)
    if kind == FUNCTION:
        event = json.dumps({"Records": [], "test": "a test of the console"})
        answer = await ports.functions.invoke(target, name, event, wait=True)
        return f"it returned {json.dumps(answer)[:500]}"
    header, _, body = _TEST_MAIL.partition(b"\r\n\r\n")
    content = Content(header + b"\r\n", b"\r\n" + body, len(body) + 2)
    if kind == BUCKET:
        return await ports.objects.put(target, name, "sendback-console-test", content)
    if kind == MAILBOX:
        to = [f"test@{call.services.settings.hostname}"]
        return await ports.mailboxes.deliver(target, "", to, content)
    raise PageError(400, "There is no such kind", f"Kinds are {', '.join(TABLES)}.")


PAGES = (
    Page("GET", "/rules/targets", list_targets, for_operator=True),
    Page("POST", "/rules/targets", change, for_operator=True),
    Page("GET", "/rules/export", export, for_operator=True),
)
