"""Identities: their state, their DNS records, DKIM keys, settings."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from starlette.responses import Response

from sendback.aws.errors import SesError
from sendback.console.call import Page, PageCall, segment
from sendback.console.call_texts import call_texts
from sendback.console.errors import PageError, not_found
from sendback.console.forms import Form
from sendback.mail.address import identity_name
from sendback.service.identities.dkim_keys import DnsRecord
from sendback.service.identities.dns_answers import RecordAnswer, zone_text
from sendback.service.identities.dns_records import wanted_records
from sendback.store.identities.dkim_keys import RotationError
from sendback.store.identities.identities import IdentityKind, ListIdentities

_SHOWN = 100
_NOTIFICATIONS = ("Bounce", "Complaint", "Delivery")


async def list_identities(call: PageCall) -> Response:
    """Show the identities of the account, by name."""
    return await _list(call, Form())


async def verify(call: PageCall) -> Response:
    """Ask for the verification of an address or a domain."""
    name = call.form.text("Identity").strip()
    try:
        if "@" in name:
            await call.ses("VerifyEmailIdentity", [("EmailAddress", name)])
        else:
            await call.ses("VerifyDomainIdentity", [("Domain", name)])
            if call.form.text("dkim"):
                await call.ses("VerifyDomainDkim", [("Domain", name)])
    except SesError as error:
        form = call.form.with_errors({"Identity": error.message})
        return await _list(call, form, error.http_status)
    where = f"/identities/{segment(identity_name(name))}"
    return call.go(where, note=f"The verification of {name} is requested.")


async def show_identity(call: PageCall) -> Response:
    """Show an identity."""
    return await _show(call, Form())


async def show_records(call: PageCall) -> Response:
    """Show the DNS records of an identity, and what DNS answers for them now.

    The page of the identity loads this as a part, so that it need not wait for DNS itself.
    """
    name = await _own(call)
    records = await _records(call, name)
    answers = await call.services.identity_checks().look_up(records)
    template = "identities/records.html" if call.is_partial else "identities/answers.html"
    return call.page(template, name=name, **_shown_records(records, answers))


async def change(call: PageCall) -> Response:
    """Change an identity: its keys, its settings; or delete it."""
    name, what = call.path["identity"], call.form.text("do")
    where = f"/identities/{segment(name)}"
    if what == "check":
        await call.ses("GetIdentityVerificationAttributes", [("Identities.member.1", name)])
        await call.services.identity_checks().check(call.account_id, name)
        return call.go(where, note=f"The DNS records of {name} were looked up.")
    if what == "rotate":
        call.permit("ses:VerifyDomainDkim")
        try:
            await call.services.identities.rotate_dkim(call.account_id, name)
        except RotationError as error:
            raise PageError(409, "The keys cannot be rotated now", str(error)) from None
        return call.go(where, note=f"The standby DKIM keys of {name} sign from now on.")
    actions = _actions(call, name)
    if what not in actions:
        raise PageError(400, "There is no such change", "Use the buttons of the page.")
    action, pairs, note = actions[what]
    try:
        await call.ses(action, pairs)
    except SesError as error:
        return await _show(call, call.form.with_ses_error(error), error.http_status)
    return call.go("/identities" if what == "delete" else where, note=note)


def _actions(call: PageCall, name: str) -> dict[str, tuple[str, list[tuple[str, str]], str]]:
    """Return the call of each button: the operation, its parameters, what was done."""
    form, of = call.form, ("Identity", name)
    enabled = form.text("Enabled") or "false"
    kind, topic = form.text("NotificationType"), form.text("SnsTopic")
    mail_from = form.text("MailFromDomain")
    return {
        "delete": ("DeleteIdentity", [of], f"{name} is deleted: mail for it is refused now."),
        "again": ("VerifyEmailIdentity", [("EmailAddress", name)], f"{name} gets a new mail."),
        "dkim": ("VerifyDomainDkim", [("Domain", name)], f"{name} has DKIM keys."),
        "sign": (
            "SetIdentityDkimEnabled",
            [of, ("DkimEnabled", enabled)],
            f"Mail from {name} is {'signed' if enabled == 'true' else 'not signed'}.",
        ),
        "mail_from": (
            "SetIdentityMailFromDomain",
            [
                of,
                *([("MailFromDomain", mail_from)] if mail_from else []),
                ("BehaviorOnMXFailure", form.text("BehaviorOnMXFailure") or "UseDefaultValue"),
            ],
            f"The MAIL FROM domain of {name} is {mail_from or 'the usual one'}.",
        ),
        "forward": (
            "SetIdentityFeedbackForwardingEnabled",
            [of, ("ForwardingEnabled", enabled)],
            f"Feedback for {name} is {'forwarded' if enabled == 'true' else 'not forwarded'}.",
        ),
        "topic": (
            "SetIdentityNotificationTopic",
            [of, ("NotificationType", kind), *([("SnsTopic", topic)] if topic else [])],
            f"{kind} notifications of {name} go to {topic or 'no topic'}.",
        ),
        "headers": (
            "SetIdentityHeadersInNotificationsEnabled",
            [of, ("NotificationType", kind), ("Enabled", enabled)],
            f"{kind} notifications of {name} are changed.",
        ),
    }


async def _list(call: PageCall, form: Form, status: int = 200) -> Response:
    call.permit("ses:ListIdentities")
    services, prefix = call.services, call.text("prefix").lower()
    unit = ListIdentities(call.account_id, None, call.text("after"), _SHOWN + 1, prefix=prefix)
    found = await services.store.read(unit)
    shown = found[:_SHOWN]
    names = [identity.identity for identity in shown]
    attributes = services.identity_attributes
    return call.page(
        "identities/list.html",
        status,
        identities=shown,
        dkim=await attributes.dkim(call.account_id, names),
        mail_from=await attributes.mail_from(call.account_id, names),
        more=shown[-1].identity if len(found) > _SHOWN else "",
        prefix=prefix,
        form=form,
        at_once=services.settings.verifies_at_once,
        snippets=call_texts(
            call, "VerifyDomainIdentity", [("Domain", form.text("Identity") or "example.com")]
        ),
    )


async def _own(call: PageCall) -> str:
    """Return the name of the identity that the page is about. Raise `PageError`, `SesError`."""
    name = identity_name(call.path["identity"])
    if name not in await call.services.identities.find(call.account_id, [name]):
        raise not_found("identity")
    await call.ses("GetIdentityVerificationAttributes", [("Identities.member.1", name)])
    return name


async def _records(call: PageCall, name: str) -> Sequence[DnsRecord]:
    services = call.services
    return await wanted_records(services.store, call.account_id, name, services.settings.hostname)


def _shown_records(
    records: Sequence[DnsRecord], answers: Sequence[RecordAnswer] = ()
) -> dict[str, Any]:
    """Return what the table of records needs; without answers they are still to be looked up."""
    rows = list(zip_longest(records, answers))
    return {"records": rows, "zone": zone_text(records), "is_looked_up": bool(answers)}


async def _show(call: PageCall, form: Form, status: int = 200) -> Response:
    name = identity_name(call.path["identity"])
    found = await call.services.identities.find(call.account_id, [name])
    if name not in found:
        raise not_found("identity")
    identity = found[name]
    one = [("Identities.member.1", name)]
    dkim = (await call.ses("GetIdentityDkimAttributes", one))["DkimAttributes"].get(name, {})
    mail_from = (await call.ses("GetIdentityMailFromDomainAttributes", one))[
        "MailFromDomainAttributes"
    ].get(name, {})
    notifications = (await call.ses("GetIdentityNotificationAttributes", one))[
        "NotificationAttributes"
    ].get(name, {})
    services = call.services
    return call.page(
        "identities/identity.html",
        status,
        identity=identity,
        is_domain=identity.kind is IdentityKind.DOMAIN,
        name=name,
        at_once=services.settings.verifies_at_once,
        **_shown_records(await _records(call, name)),
        keys=await services.identities.dkim_keys(call.account_id, (name,)),
        checks=await services.identity_checks().known(call.account_id, name),
        dkim=dkim,
        mail_from=mail_from,
        notifications=_topics(notifications),
        forwarding=notifications.get("ForwardingEnabled", False),
        policies=await services.identity_policies.find(call.account_id, name),
        form=form,
        snippets=call_texts(
            call,
            "SetIdentityMailFromDomain",
            [
                ("Identity", name),
                (
                    "MailFromDomain",
                    form.text("MailFromDomain") or "bounce." + name.rpartition("@")[2],
                ),
            ],
        ),
    )


def _topics(found: Any) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "topic": found.get(f"{kind}Topic", ""),
            "headers": found.get(f"HeadersIn{kind}NotificationsEnabled", False),
        }
        for kind in _NOTIFICATIONS
    ]


PAGES = (
    Page("GET", "/identities", list_identities),
    Page("POST", "/identities", verify),
    Page("GET", "/identities/{identity}", show_identity),
    Page("POST", "/identities/{identity}", change),
    Page("GET", "/identities/{identity}/records", show_records),
)
