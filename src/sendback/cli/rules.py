"""`sendback rules`: manage and test receipt rule sets, IP filters and their targets."""

import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sendback.cli.failures import CommandFailedError, usage_error
from sendback.cli.files import read_octets, read_text
from sendback.cli.options import Json, StoreOptions, on_store
from sendback.cli.output import print_fields, print_json, print_rows, printable, say

if TYPE_CHECKING:
    from sendback.app import App
    from sendback.config.settings import Settings
    from sendback.mail.envelope import Envelope
    from sendback.receipt.model import Action, Rule
    from sendback.service.rules.apply_setup import Applied
    from sendback.service.rules.dry_run import DryRunResult
    from sendback.store.rules.rule_sets import RuleSet
    from sendback.store.rules.setup import ActiveDeletion

app = typer.Typer(
    help="Manage and test what is done with mail: receipt rule sets, IP filters, targets.",
    no_args_is_help=True,
)

_MAX_SETUP_OCTETS = 10 * 2**20


@app.command("list")
@on_store
def list_rule_sets(
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """List the rule sets, and which one is active."""

    async def work(app: "App", settings: "Settings") -> list[dict[str, Any]]:
        active = await app.rule_sets.describe_active(settings.account_id)
        rows: list[dict[str, Any]] = []
        token: str | None = None
        while True:
            page = await app.rule_sets.list(settings.account_id, token)
            for name, created_at in page.rule_sets:
                rule_set = await app.rule_sets.describe(settings.account_id, name)
                rows.append(
                    {
                        "name": name,
                        "active": active is not None and active.name == name,
                        "rules": len(rule_set.rules),
                        "created_at": created_at,
                    }
                )
            token = page.next_token
            if token is None:
                return rows

    rows = options.run(work)
    print_rows(rows, ("name", "active", "rules", "created_at"), as_json=as_json)


@app.command("show")
@on_store
def show_rule_set(
    name: Annotated[
        str | None, typer.Argument(help="A rule set.", show_default="the active one")
    ] = None,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Show the rules of a rule set in order; with --json, all of their members."""

    async def work(app: "App", settings: "Settings") -> "tuple[RuleSet, bool]":
        found = await _rule_set(app, settings, name)
        active = await app.rule_sets.describe_active(settings.account_id)
        return found, active is not None and active.name == found.name

    from sendback.receipt.model import ACTION_TYPES

    rule_set, is_active = options.run(work)
    if as_json:
        rules = [_rule_fields(rule) for rule in rule_set.rules]
        print_json({"name": rule_set.name, "active": is_active, "rules": rules})
        return
    rows = [
        {
            "rule": rule.name,
            "enabled": "yes" if rule.enabled else "no",
            "tls": rule.tls_policy.value,
            "scan": "yes" if rule.scan_enabled else "no",
            "recipients": rule.recipients or ("all",),
            "actions": [ACTION_TYPES[type(action)] for action in rule.actions],
        }
        for rule in rule_set.rules
    ]
    print_rows(rows, ("rule", "enabled", "tls", "scan", "recipients", "actions"), as_json=False)


@app.command("activate")
@on_store
def activate_rule_set(
    name: Annotated[str | None, typer.Argument(help="The rule set.", show_default=False)] = None,
    none: Annotated[bool, typer.Option("--none", help="Deactivate the active rule set.")] = False,
    *,
    options: StoreOptions,
) -> None:
    """Activate a rule set, for mail received from now on."""
    if (name is None) != none:
        raise usage_error("name a rule set, or give --none")

    async def work(app: "App", settings: "Settings") -> None:
        await app.rule_sets.activate(settings.account_id, name)

    options.run(work)
    say(f"Rule set {name} is active." if name else "No rule set is active.")


@app.command("apply")
@on_store
def apply_setup(
    file: Annotated[Path, typer.Argument(help="A TOML file; - is standard input.")],
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Delete rule sets, filters and targets that are not in it."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change, and change nothing.")
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Delete the active rule set without asking (--prune)."),
    ] = False,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Apply a TOML file that defines identities, rule sets, filters and targets.

    The format is in docs/receiving.md. Applying a file again changes nothing. If anything in it is
    invalid, nothing is applied. A running server uses the changes within a second.
    """
    from sendback.service.rules.setup_file import read_setup

    setup = read_setup(read_text(file, _MAX_SETUP_OCTETS), file)

    async def work(app: "App", settings: "Settings") -> "Applied":
        if dry_run:
            applied = await app.setup.apply(settings.account_id, setup, prune=prune, dry_run=True)
            return _with_deletion_warning(applied, settings)
        return await app.setup.apply(
            settings.account_id, setup, prune=prune, may_delete=frozenset(may_delete)
        )

    may_delete: set[str] = set()
    applied = _confirmed(
        lambda: options.run(work, decides=bool(setup.identities)), may_delete, options, yes=yes
    )
    if as_json:
        fields = {"changes": applied.changes, "warnings": applied.warnings}
        print_json({**fields, "applied": not dry_run})
    else:
        _print_applied(applied, dry_run=dry_run)


@app.command("test")
@on_store
def run_mail_through_rules(
    file: Annotated[Path, typer.Argument(help="A mail; - is standard input.")],
    recipients: Annotated[
        list[str], typer.Option("--to", help="A recipient; repeat the option for more.")
    ],
    sender: Annotated[
        str, typer.Option("--from", help="The reverse-path; empty for the null reverse-path.")
    ],
    ip: Annotated[str, typer.Option(help="The client's IP address.")] = "127.0.0.1",
    helo: Annotated[str, typer.Option(help="The client's EHLO name.")] = "localhost",
    tls: Annotated[bool, typer.Option(help="Whether the client uses TLS.")] = False,
    rule_set: Annotated[
        str | None, typer.Option(help="A rule set.", show_default="the active one")
    ] = None,
    as_json: Json = False,
    *,
    options: StoreOptions,
) -> None:
    """Print what the rules would do with a mail, without doing it.

    No function is called: each counts as returning CONTINUE. SPF, DKIM and DMARC are checked in
    DNS.
    """
    envelope = _envelope(sender, recipients, ip, helo, tls)
    content = b"\r\n".join(read_octets(file).splitlines()) + b"\r\n"

    async def work(app: "App", settings: "Settings") -> "DryRunResult":
        from sendback.service.rules.dry_run import DryRun

        found = await _rule_set(app, settings, rule_set)
        dry_run = DryRun(app.store, app.clock, app.targets, app.mail_checks)
        try:
            return await dry_run.run(settings.account_id, found, envelope, content)
        finally:
            await app.mail_checks.close()

    _print_dry_run(options.run(work), as_json)


def _confirmed(
    apply: "Callable[[], Applied]", may_delete: set[str], options: StoreOptions, *, yes: bool
) -> "Applied":
    """Apply the setup; ask before an active rule set is deleted, unless `yes`.

    The question is asked outside the event loop, which would keep Ctrl-C from ending it.
    """
    from sendback.store.rules.setup import ActiveDeletionError

    while True:
        try:
            return apply()
        except ActiveDeletionError as error:
            if not yes:
                _confirm(_deletion_text(error.deletion, options.load()[0].settings))
            may_delete.add(error.deletion.name)


def _confirm(consequence: str) -> None:
    """Ask whether to delete a rule set. Raise `CommandFailedError` for no.

    Raise `BadParameter` without a terminal.
    """
    if not (sys.stdin and sys.stdin.isatty()):
        raise usage_error(f"{consequence}; to delete it, give --yes")
    if not typer.confirm(f"{printable(consequence)}; delete it?", err=True):
        raise CommandFailedError("nothing is changed")


def _deletion_text(deletion: "ActiveDeletion", settings: "Settings") -> str:
    if deletion.successor is not None:
        consequence = f"be processed by rule set {deletion.successor} instead"
    elif settings.receive_without_rules:
        consequence = "be received without being processed by any rule"
    else:
        consequence = "be refused, as no rule set would be active"
    return f"rule set {deletion.name} is active; mail would {consequence}"


def _with_deletion_warning(applied: "Applied", settings: "Settings") -> "Applied":
    if applied.deletion is None:
        return applied
    text = _deletion_text(applied.deletion, settings)
    return replace(applied, warnings=(*applied.warnings, text))


def _print_applied(applied: "Applied", *, dry_run: bool) -> None:
    for change in applied.changes or ("nothing to change",):
        say(change[0].upper() + change[1:] + ".")
    for warning in applied.warnings:
        say(f"Warning: {warning}.", err=True)
    if dry_run:
        say("This was a dry run: nothing is changed.", err=True)


async def _rule_set(app: "App", settings: "Settings", name: str | None) -> "RuleSet":
    if name is not None:
        return await app.rule_sets.describe(settings.account_id, name)
    found = await app.rule_sets.describe_active(settings.account_id)
    if found is None:
        raise CommandFailedError(
            "no rule set is active: name one, or activate one with `sendback rules activate`"
        )
    return found


def _rule_fields(rule: "Rule") -> dict[str, Any]:
    return {
        "name": rule.name,
        "enabled": rule.enabled,
        "tls_policy": rule.tls_policy.value,
        "recipients": rule.recipients,
        "actions": [_action_fields(action) for action in rule.actions],
        "scan_enabled": rule.scan_enabled,
    }


def _action_fields(action: "Action") -> dict[str, Any]:
    from sendback.receipt.model import ACTION_TYPES

    return {"type": ACTION_TYPES[type(action)], **asdict(action)}


def _envelope(sender: str, recipients: list[str], ip: str, helo: str, tls: bool) -> "Envelope":
    from sendback.mail.address import AddressError, parse_address
    from sendback.mail.envelope import Client, Envelope, Recipient, ReversePath

    try:
        reverse_path = ReversePath(
            parse_address(sender, any_dots=True) if sender.strip("<>") else None
        )
        parsed = tuple(Recipient(parse_address(text, any_dots=True)) for text in recipients)
    except AddressError as error:
        raise usage_error(str(error)) from None
    return Envelope(Client(ip, helo, "TLSv1.3" if tls else None), reverse_path, parsed)


def _print_dry_run(result: "DryRunResult", as_json: bool) -> None:
    steps = [
        {"rule": step.rule, "action": step.action, "for": step.recipients, "what": step.text}
        for step in result.steps
    ]
    from sendback.inspection.shown import verdict_fields

    verdicts = verdict_fields(result.verdicts)
    if as_json:
        print_json({"recipients": result.recipients, "verdicts": verdicts, "steps": steps})
        return
    print_fields({**result.recipients, **verdicts}, as_json=False)
    say("")
    print_rows(steps, ("rule", "action", "for", "what"), as_json=False, whole=True)
