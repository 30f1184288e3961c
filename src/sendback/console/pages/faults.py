"""Faults: the server fails on purpose."""

from starlette.responses import Response

from sendback.console.call import Page, PageCall
from sendback.console.forms import Form
from sendback.errors import InvalidInputError
from sendback.faults.model import Point
from sendback.store.engine.errors import AlreadyExistsError, LimitReachedError

_NUMBERS = {
    "first": int,
    "every": int,
    "from": int,
    "seed": int,
    "probability": float,
    "delay": float,
}
_TEXTS = (
    "at", "name", "client", "sender", "recipient", "operation", "action", "reply", "error",
    "failure", "text",
)  # fmt: skip
_FLAGS = ("drop", "lost")


async def list_faults(call: PageCall) -> Response:
    """Show the faults in the order in which they are tried."""
    return await _page(call, Form())


async def change(call: PageCall) -> Response:
    """Add or remove faults."""
    form, faults, what = call.form, call.services.faults, call.form.text("do")
    if what == "remove":
        await faults.remove(form.text("name"))
        return call.go("/faults", note=f"Fault {form.text('name')} is removed.")
    if what == "clear":
        count = await faults.clear()
        return call.go("/faults", note=f"{count} faults are removed.")
    try:
        stored = await faults.add(faults.from_json(_json(form)))
    except (InvalidInputError, AlreadyExistsError, LimitReachedError, ValueError) as error:
        return await _page(call, _with_error(form, str(error)), 400)
    return call.go("/faults", note=f"Fault {stored.rule.name} is added.")


def _json(form: Form) -> dict[str, object]:
    found: dict[str, object] = {name: form.text(name) for name in _TEXTS if form.text(name)}
    for name, kind in _NUMBERS.items():
        if form.text(name):
            try:
                found[name] = kind(form.text(name))
            except ValueError:
                raise ValueError(f"{name}: it must be a number") from None
    return {**found, **{name: True for name in _FLAGS if form.text(name)}}


def _with_error(form: Form, text: str) -> Form:
    """Put the error beside the field that it begins with, or above all."""
    name = next((name for name in form.names() if text.startswith((f"{name} ", f"{name}:"))), "")
    return form.with_errors({name: text})


async def _page(call: PageCall, form: Form, status: int = 200) -> Response:
    return call.page(
        "server/faults.html",
        status,
        faults=await call.services.faults.list(),
        points=[(point.value, point.value) for point in Point],
        form=form,
        by_mx=call.services.settings.outbound.by_mx,
    )


PAGES = (
    Page("GET", "/faults", list_faults, for_operator=True),
    Page("POST", "/faults", change, for_operator=True),
)
