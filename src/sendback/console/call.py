"""A request for a page: its viewer, its parameters, its form; and the responses."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sendback.aws.errors import SesError
from sendback.console.errors import PageError, not_permitted
from sendback.console.forms import Form
from sendback.console.rendering import render
from sendback.console.services import ConsoleServices
from sendback.console.viewer import Viewer

_MAX_PARAMETERS = 50
_MAX_VALUE = 1000
_NOTE = "note"

Handler = Callable[["PageCall"], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """A method of a path; a name in braces is one segment of it.

    `for_operator`: only the operator may use it. `for_all`: who has not signed in may too.
    """

    method: str
    path: str
    handler: Handler
    for_operator: bool = False
    for_all: bool = False


@dataclass(frozen=True)
class PageCall:
    """A request that is permitted: `path` has the variable segments, `form` the body of a POST.

    `notes` are what `go` was given: what was changed. `sessions` may get one that the browser is
    given with the response, instead of its own.
    """

    request: Request
    path: Mapping[str, str]
    services: ConsoleServices
    viewer: Viewer
    token: str
    form: Form = field(default_factory=Form)
    common: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)

    @property
    def account_id(self) -> str:
        return self.viewer.account_id

    @cached_property
    def parameters(self) -> Mapping[str, str]:
        """The parameters of the URL; the last of a name counts. Raise `PageError`."""
        try:
            pairs = parse_qsl(
                self.request.scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                max_num_fields=_MAX_PARAMETERS,
            )
        except ValueError:
            raise PageError(400, "The address cannot be read", "Follow a link of a page.") from None
        return {name: value[:_MAX_VALUE].replace("\0", "") for name, value in pairs}

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter of the URL; a link of another site has no note of what was changed."""
        site = self.request.headers.get("sec-fetch-site", "same-origin")
        if name == _NOTE and site != "same-origin":
            return default
        return self.parameters.get(name, default).strip()

    @property
    def is_partial(self) -> bool:
        """Whether htmx asks for a part of the page; `target` is the ID of what it replaces."""
        headers = self.request.headers
        return headers.get("hx-request") == "true" and "hx-history-restore-request" not in headers

    @property
    def target(self) -> str:
        return self.request.headers.get("hx-target", "") if self.is_partial else ""

    # --- what the viewer may do -----------------------------------------------------------------

    def permit(self, action: str, resource: str = "*") -> None:
        """Raise `PageError` unless the policies of the viewer allow an action.

        The actions of the console itself are in `docs/console.md`. Users without policies may do
        everything in their account.
        """
        viewer = self.viewer
        if not self.services.authorization.permits(
            viewer.caller, viewer.origin, action, resource, {}
        ):
            raise not_permitted(action)

    def may(self, action: str) -> bool:
        """Whether the viewer's policies allow an action."""
        try:
            self.permit(action)
        except PageError:
            return False
        return True

    async def ses(self, action: str, pairs: Sequence[tuple[str, str]] = ()) -> Mapping[str, Any]:
        """Call an operation of SES as the viewer, with all checks of the API. Raise `SesError`."""
        viewer = self.viewer
        return await self.services.ses.call(
            viewer.caller, viewer.origin, [("Action", action), *pairs]
        )

    async def ses_form(self, action: str) -> tuple[Form, Mapping[str, Any] | None]:
        """Call an operation with the fields of the form; return the form with its errors."""
        try:
            return self.form, await self.ses(action, self.form.filled())
        except SesError as error:
            return self.form.with_ses_error(error), None

    # --- responses ------------------------------------------------------------------------------

    def page(self, template: str, status: int = 200, **context: Any) -> Response:
        """Return a page, or a part of one, by its template."""
        whole = {**self.common, "call": self, "viewer": self.viewer, "token": self.token, **context}
        return HTMLResponse(render(template, whole), status)

    def go(self, path: str, note: str = "", **parameters: str) -> Response:
        """Return a redirect to a page of the console after a change; the page shows the note."""
        if note:
            parameters[_NOTE] = note
            self.notes.append(note)
        where = f"/console{path}" + (f"?{urlencode(parameters)}" if parameters else "")
        if self.is_partial:
            location = json.dumps({"path": where, "target": "body"})
            return Response(status_code=200, headers={"HX-Location": location})
        return RedirectResponse(where, 303)


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe="")
