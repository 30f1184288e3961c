"""Custom verification mails: their templates, and sending one."""

from starlette.responses import Response

from sendback.aws.errors import SesError
from sendback.console.call import Page, PageCall, segment
from sendback.console.call_texts import call_texts
from sendback.console.errors import PageError, not_found
from sendback.console.forms import Form

_WHERE = "/verification-templates"
_FIELDS = (
    "FromEmailAddress",
    "TemplateSubject",
    "TemplateContent",
    "SuccessRedirectionURL",
    "FailureRedirectionURL",
)
_MAX_SHOWN = 500_000  # characters of a content that is changed in a form
_EXAMPLE = """<p>Hello,</p>
<p>please confirm this address by the link below.</p>"""
_FIRST = {
    "TemplateName": "welcome",
    "FromEmailAddress": "verify@example.com",
    "TemplateSubject": "Please confirm your address",
    "TemplateContent": _EXAMPLE,
    "SuccessRedirectionURL": "https://example.com/confirmed",
    "FailureRedirectionURL": "https://example.com/not-confirmed",
}


async def show_all(call: PageCall) -> Response:
    """Show the templates of the account."""
    return await _list(call, Form())


async def create(call: PageCall) -> Response:
    """Create a template."""
    name = call.form.text("TemplateName")
    try:
        await call.ses("CreateCustomVerificationEmailTemplate", _pairs(call.form, name))
    except SesError as error:
        return await _list(call, _with_error(call.form, error), error.http_status)
    return call.go(f"{_WHERE}/{segment(name)}", note=f"Template {name} is created.")


async def show(call: PageCall) -> Response:
    """Show a template."""
    return await _template(call, Form())


async def change(call: PageCall) -> Response:
    """Change or delete a template, or send a mail by it."""
    name, form = call.path["template"], call.form
    where, what = f"{_WHERE}/{segment(name)}", form.text("do")
    template, address = ("TemplateName", name), form.text("EmailAddress").strip()
    try:
        if what == "delete":
            await call.ses("DeleteCustomVerificationEmailTemplate", [template])
            return call.go(_WHERE, note=f"Template {name} is deleted.")
        if what == "send":
            pairs = [("EmailAddress", address), template]
            await call.ses("SendCustomVerificationEmail", pairs)
            return call.go(where, note=f"A mail by template {name} is queued for {address}.")
        if what == "save":
            await call.ses("UpdateCustomVerificationEmailTemplate", _pairs(form, name))
            return call.go(where, note=f"Template {name} is changed.")
    except SesError as error:
        return await _template(call, _with_error(form, error), error.http_status)
    raise PageError(400, "There is no such change", "Use the buttons of the page.")


async def _list(call: PageCall, form: Form, status: int = 200) -> Response:
    found = await call.ses("ListCustomVerificationEmailTemplates", [])
    shown = [(name, form.text(name) or value) for name, value in _FIRST.items()]
    return call.page(
        "identities/templates.html",
        status,
        templates=found["CustomVerificationEmailTemplates"],
        example=_EXAMPLE,
        form=form,
        snippets=call_texts(call, "CreateCustomVerificationEmailTemplate", shown),
    )


async def _template(call: PageCall, form: Form, status: int = 200) -> Response:
    name = call.path["template"]
    try:
        found = await call.ses("GetCustomVerificationEmailTemplate", [("TemplateName", name)])
    except SesError as error:
        if error.code == "CustomVerificationEmailTemplateDoesNotExist":
            raise not_found("template") from None
        raise
    address = form.text("EmailAddress") or "ann@example.com"
    return call.page(
        "identities/template.html",
        status,
        name=name,
        mail=found,
        is_long=len(found["TemplateContent"]) > _MAX_SHOWN,
        form=form,
        snippets=call_texts(
            call,
            "SendCustomVerificationEmail",
            [("EmailAddress", address), ("TemplateName", name)],
        ),
    )


def _pairs(form: Form, name: str) -> list[tuple[str, str]]:
    """Return the parameters of a call; a field that the form lacks is not changed by it."""
    given = set(form.names())
    fields = [(field, form.text(field).replace("\r\n", "\n")) for field in _FIELDS]
    return [("TemplateName", name), *((key, text) for key, text in fields if key in given)]


def _with_error(form: Form, error: SesError) -> Form:
    """Return the form with the error beside its field: these texts do not name the members."""
    message = error.message.lower()
    for words, field in _ERRORS:
        if words in message and field in form.names():
            return form.with_errors({field: error.message, "": error.code})
    return form.with_ses_error(error)


_ERRORS = (
    ("template name", "TemplateName"),
    ("already exists", "TemplateName"),
    ("success redirection url", "SuccessRedirectionURL"),
    ("failure redirection url", "FailureRedirectionURL"),
    ("from email address", "FromEmailAddress"),
    ("the subject", "TemplateSubject"),
    ("the content", "TemplateContent"),
    ("email address", "EmailAddress"),
)


PAGES = (
    Page("GET", _WHERE, show_all),
    Page("POST", _WHERE, create),
    Page("GET", _WHERE + "/{template}", show),
    Page("POST", _WHERE + "/{template}", change),
)
