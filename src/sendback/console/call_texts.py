"""The call that a form makes, as texts for other languages."""

from collections.abc import Sequence

from sendback.aws.errors import SesError
from sendback.aws.model import operation_model
from sendback.aws.query import decode
from sendback.console.call import PageCall
from sendback.console.snippets import Snippets, snippets


def call_texts(call: PageCall, action: str, pairs: Sequence[tuple[str, str]]) -> Snippets | None:
    """Return the texts of a call with these parameters; None while they are not complete."""
    try:
        given = decode(operation_model(action), [("Action", action), *pairs])
    except SesError:
        return None
    return snippets(action, given, f"http://{call.services.http}", call.services.settings.region)
