"""Custom verification mails. SES API: the operations named …CustomVerificationEmail…."""

from collections.abc import Mapping
from typing import Any

from sendback.api.services import Request, Services
from sendback.aws.errors import SesError
from sendback.service.identities.verification_templates import MAX_PAGE
from sendback.store.identities.verification_templates import VerificationTemplate

Output = Mapping[str, Any]

# Members of the SES model, and the fields of `VerificationTemplate` that hold them.
_FIELDS = {
    "FromEmailAddress": "from_address",
    "TemplateSubject": "subject",
    "TemplateContent": "content",
    "SuccessRedirectionURL": "success_url",
    "FailureRedirectionURL": "failure_url",
}


async def create_custom_verification_email_template(request: Request, services: Services) -> Output:
    """SES API: CreateCustomVerificationEmailTemplate."""
    given = {field: request.input[member] for member, field in _FIELDS.items()}
    template = VerificationTemplate(
        request.caller.account_id, request.input["TemplateName"], **given
    )
    await services.verification_templates.create(template)
    return {}


async def update_custom_verification_email_template(request: Request, services: Services) -> Output:
    """SES API: UpdateCustomVerificationEmailTemplate. Absent members are unchanged."""
    given = {
        field: _text(request, member)
        for member, field in _FIELDS.items()
        if member in request.input
    }
    await services.verification_templates.update(*_name(request), given)
    return {}


async def get_custom_verification_email_template(request: Request, services: Services) -> Output:
    """SES API: GetCustomVerificationEmailTemplate."""
    template = await services.verification_templates.get(*_name(request))
    return _shape(template)


async def delete_custom_verification_email_template(request: Request, services: Services) -> Output:
    """SES API: DeleteCustomVerificationEmailTemplate."""
    await services.verification_templates.delete(*_name(request))
    return {}


async def list_custom_verification_email_templates(request: Request, services: Services) -> Output:
    """SES API: ListCustomVerificationEmailTemplates. The output shape has no content."""
    limit = request.input.get("MaxResults", MAX_PAGE)
    page = await services.verification_templates.list(
        request.caller.account_id,
        request.input.get("NextToken"),
        limit if 1 <= limit <= MAX_PAGE else MAX_PAGE,
    )
    shapes = [_shape(template) for template in page.templates]
    return {"CustomVerificationEmailTemplates": shapes, "NextToken": page.next_token}


async def send_custom_verification_email(request: Request, services: Services) -> Output:
    """SES API: SendCustomVerificationEmail."""
    account_id, template = _name(request)
    message_id = await services.verification_templates.send(
        account_id,
        request.input["EmailAddress"],
        template,
        request.input.get("ConfigurationSetName"),
    )
    return {"MessageId": message_id}


def _name(request: Request) -> tuple[str, str]:
    return request.caller.account_id, request.input["TemplateName"]


def _text(request: Request, member: str) -> str:
    text: str = request.input[member]
    if not text.strip():
        raise SesError("InvalidParameterValue", f"{member} is required.")
    return text


def _shape(template: VerificationTemplate) -> dict[str, str]:
    texts = {member: getattr(template, field) for member, field in _FIELDS.items()}
    return {"TemplateName": template.name, **texts}


OPERATIONS = {
    "CreateCustomVerificationEmailTemplate": create_custom_verification_email_template,
    "DeleteCustomVerificationEmailTemplate": delete_custom_verification_email_template,
    "GetCustomVerificationEmailTemplate": get_custom_verification_email_template,
    "ListCustomVerificationEmailTemplates": list_custom_verification_email_templates,
    "SendCustomVerificationEmail": send_custom_verification_email,
    "UpdateCustomVerificationEmailTemplate": update_custom_verification_email_template,
}
