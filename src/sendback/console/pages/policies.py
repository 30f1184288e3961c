"""The policies of an identity, and the simulator."""

from starlette.responses import Response

from sendback.authz.conditions import moment
from sendback.aws.arn import IdentityArn
from sendback.aws.errors import SesError
from sendback.console.call import Page, PageCall, segment
from sendback.console.call_texts import call_texts
from sendback.console.errors import not_found
from sendback.console.forms import Form
from sendback.mail.address import identity_name
from sendback.service.access.policy_simulator import Question, QuestionError, simulate_bounce

_EXAMPLE = """{{
  "Version": "2012-10-17",
  "Statement": [
    {{
      "Sid": "LetThemBounce",
      "Effect": "Allow",
      "Principal": {{"AWS": "111111111111"}},
      "Action": "ses:SendBounce",
      "Resource": "{arn}"
    }}
  ]
}}"""


async def show(call: PageCall) -> Response:
    """Show the policies of an identity."""
    return await _page(call, Form())


async def change(call: PageCall) -> Response:
    """Put or delete a policy, or simulate a call."""
    name, what = call.path["identity"], call.form.text("do")
    policy = call.form.text("PolicyName")
    where = f"/identities/{segment(name)}/policies"
    if what == "simulate":
        return await _simulate(call)
    pairs = [("Identity", name), ("PolicyName", policy)]
    try:
        if what == "delete":
            await call.ses("DeleteIdentityPolicy", pairs)
            return call.go(where, note=f"Policy {policy} of {name} is deleted.")
        await call.ses("PutIdentityPolicy", [*pairs, ("Policy", call.form.text("Policy"))])
    except SesError as error:
        form = call.form.with_ses_error(error)
        if error.code == "InvalidPolicy":
            form = call.form.with_errors({"Policy": error.message, "": error.code})
        return await _page(call, form, status=error.http_status)
    return call.go(where, note=f"Policy {policy} of {name} is written.")


async def _simulate(call: PageCall) -> Response:
    form, services = call.form, call.services
    identity = call.path["identity"]
    question = Question(
        account_id=form.text("account") or call.account_id,
        user=form.text("user") or "root",
        sender=form.text("sender"),
        owner=call.account_id,
        identity=identity,
        source_ip=form.text("source_ip"),
        at=form.text("at") or None,
        secure=bool(form.text("secure")),
    )
    if question.account_id != call.account_id and not call.viewer.is_operator:
        form = form.with_errors({"account": "Only the operator may simulate other accounts."})
        return await _page(call, form, status=403)
    try:
        found = await simulate_bounce(
            services.store, services.authorization, services.settings.region, question
        )
    except QuestionError as error:
        field = "at" if question.at and moment(question.at) is None else "sender"
        return await _page(call, form.with_errors({field: str(error)}), status=400)
    return await _page(call, form, simulation=found)


async def _page(
    call: PageCall, form: Form, *, simulation: object = None, status: int = 200
) -> Response:
    name = identity_name(call.path["identity"])
    if name not in await call.services.identities.find(call.account_id, [name]):
        raise not_found("identity")
    call.permit("ses:GetIdentityPolicies")
    arn = IdentityArn(call.services.settings.region, call.account_id, name)
    example = _EXAMPLE.format(arn=arn)
    written = [
        ("Identity", name),
        ("PolicyName", form.text("PolicyName") or "LetThemBounce"),
        ("Policy", form.text("Policy").replace("\r\n", "\n") or example),
    ]
    return call.page(
        "identities/policies.html",
        status,
        name=name,
        policies=await call.services.identity_policies.find(call.account_id, name),
        example=example,
        snippets=call_texts(call, "PutIdentityPolicy", written),
        form=form,
        simulation=simulation,
    )


PAGES = (
    Page("GET", "/identities/{identity}/policies", show),
    Page("POST", "/identities/{identity}/policies", change),
)
