"""Try a mail: which rules would run for it, and why not. Nothing is changed."""

from starlette.responses import Response

from sendback.aws.errors import SesError
from sendback.console.call import Page, PageCall
from sendback.console.forms import Form
from sendback.mail.address import AddressError, parse_address
from sendback.mail.envelope import Client, Envelope, Recipient, ReversePath
from sendback.receipt.matching import compile_rules
from sendback.receipt.model import Rule
from sendback.service.rules.dry_run import DryRunResult
from sendback.store.rules.rule_sets import RuleSet

_EXAMPLE = "From: ann@sender.example\nTo: bob@example.com\nSubject: Invoice\n\nHello\n"
_MAX_COPIED = 2**20
_MAX_RECIPIENTS = 100


async def show(call: PageCall) -> Response:
    """Show the form: empty, or with a copy of a message."""
    message_id = call.text("message")
    pairs = [
        ("sender", "ann@sender.example"),
        ("recipients", "bob@example.com"),
        ("ip", "127.0.0.1"),
        ("helo", "localhost"),
        ("mail", _EXAMPLE),
    ]
    if message_id:
        call.permit("sendback:ReadMail")
        pairs = await _copied(call, message_id)
        return await _page(call, Form(tuple(pairs)), run=True)
    return await _page(call, Form(tuple(pairs)), run=False)


async def run(call: PageCall) -> Response:
    """Show what the rules would do."""
    form = call.form
    uploaded = form.text("file")
    if uploaded:
        pairs = [pair for pair in form.pairs if pair[0] not in {"mail", "file"}]
        text = uploaded.encode("latin-1").decode("utf-8", "surrogateescape")
        form = Form((*pairs, ("mail", text.encode("utf-8", "replace").decode())))
    return await _page(call, form, run=True, octets=uploaded.encode("latin-1") or None)


async def _copied(call: PageCall, message_id: str) -> list[tuple[str, str]]:
    shown = await call.services.messages.find(call.account_id, message_id)
    envelope = shown.message.envelope
    content = b"" if shown.content is None else await shown.content.whole()
    found = [
        ("sender", str(envelope.reverse_path)),
        ("recipients", "\n".join(str(entry.address) for entry in envelope.recipients)),
        ("ip", envelope.client.ip),
        ("helo", envelope.client.helo),
        ("mail", content[:_MAX_COPIED].decode("utf-8", "replace").replace("\r\n", "\n")),
    ]
    return [*found, ("tls", "true")] if envelope.client.tls else found


async def _page(call: PageCall, form: Form, *, run: bool, octets: bytes | None = None) -> Response:
    names = await _rule_set_names(call)
    rule_set = await _rule_set(call, form)
    context = {"form": form, "rule_sets": names, "result": None, "rules": [], "rule_set": rule_set}
    if not run:
        return call.page("rules/try.html", 200, **context)
    if rule_set is None:
        form = form.with_errors({"": "No rule set is active: choose one, or activate one first."})
        return call.page("rules/try.html", 400, **{**context, "form": form})
    try:
        envelope = _envelope(form)
    except AddressError as error:
        form = form.with_errors({"recipients": str(error)})
        return call.page("rules/try.html", 400, **{**context, "form": form})
    content = octets or form.text("mail").encode("utf-8", "replace")
    content = b"\r\n".join(content.splitlines()) + b"\r\n"
    result = await call.services.dry_run().run(call.account_id, rule_set, envelope, content)
    shown = {**context, "result": result, "rules": _explained(rule_set, envelope, result)}
    return call.page("rules/try.html", 200, **shown)


def _envelope(form: Form) -> Envelope:
    """Raise `AddressError`."""
    sender = form.text("sender").strip().strip("<>")
    reverse_path = ReversePath(parse_address(sender, any_dots=True) if sender else None)
    texts = form.text("recipients").replace(",", "\n").split()[:_MAX_RECIPIENTS]
    if not texts:
        raise AddressError("a mail has at least one recipient")
    recipients = tuple(Recipient(parse_address(text, any_dots=True)) for text in texts)
    tls = "TLSv1.3" if form.text("tls") else None
    client = Client(form.text("ip") or "127.0.0.1", form.text("helo") or "localhost", tls)
    return Envelope(client, reverse_path, recipients)


def _explained(
    rule_set: RuleSet, envelope: Envelope, result: DryRunResult
) -> list[tuple[str, str, str]]:
    """Return each rule with a word and the reason why it would run or not."""
    ran = {step.rule for step in result.steps}
    found = []
    stopped = ""
    for rule in rule_set.rules:
        word, reason = _reason(rule, envelope, result, stopped)
        if rule.name in ran:
            word, reason = "runs", f"{len([s for s in result.steps if s.rule == rule.name])} steps"
            if any(s.rule == rule.name and s.action == "Stop" for s in result.steps):
                stopped = rule.name
        found.append((rule.name, word, reason))
    return found


def _reason(rule: Rule, envelope: Envelope, result: DryRunResult, stopped: str) -> tuple[str, str]:
    if not rule.enabled:
        return "left out", "it is not enabled"
    matching = compile_rules((rule,))
    wanted = [entry for entry in envelope.recipients if matching.matching(entry.address)]
    if not wanted:
        return "left out", f"no recipient matches {', '.join(rule.recipients) or 'it'}"
    replies = [result.recipients[str(entry.address)] for entry in wanted]
    if not any(reply.startswith("250") for reply in replies):
        return "left out", f"its recipient is refused: {replies[0]}"
    if stopped:
        return "left out", f"rule {stopped} stops the rule set"
    return "runs", "it has no actions"


async def _rule_set_names(call: PageCall) -> list[tuple[str, str]]:
    try:
        page = await call.services.rule_sets.list(call.account_id, None)
    except SesError:
        return []
    return [("", "the active one"), *((name, name) for name, _ in page.rule_sets)]


async def _rule_set(call: PageCall, form: Form) -> RuleSet | None:
    name = form.text("rule_set")
    if name:
        return await call.services.rule_sets.describe(call.account_id, name)
    return await call.services.rule_sets.describe_active(call.account_id)


PAGES = (
    Page("GET", "/rules/try", show),
    Page("POST", "/rules/try", run),
)
