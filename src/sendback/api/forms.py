"""Parse the query strings and form bodies of the Query protocol.

The time is linear in the octets, and the number of pairs is bounded. The text must be ASCII, and
its percent-encoded octets UTF-8. A NUL is refused: text in PostgreSQL cannot contain it.
"""

from collections.abc import Iterable
from urllib.parse import parse_qsl

from sendback.aws.errors import SesError, invalid_value, shown

# Enough for a SendBounce with explicit fields for two thousand recipients.
MAX_PARAMETERS = 20_000
# Lower for a query string: it is parsed before the signature is checked.
MAX_QUERY_PARAMETERS = 2_000


def parse_form(octets: bytes, limit: int = MAX_PARAMETERS) -> list[tuple[str, str]]:
    """Return the name and value pairs, in order. Raise `SesError`."""
    try:
        text = octets.decode("ascii")
    except UnicodeDecodeError:
        raise malformed("The parameters are not a URL-encoded form.") from None
    try:
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=bool(text),
            errors="strict",
            max_num_fields=limit,
        )
    except ValueError as error:  # UnicodeDecodeError is one
        text = shown(str(error))
        raise malformed(f"The query string contains a syntax error: {text}") from None
    if "%00" in text or "\0" in text:
        _refuse_nul(pairs)
    return pairs


def malformed(text: str) -> SesError:
    """Return the error MalformedQueryString (SES API, common errors)."""
    return SesError("MalformedQueryString", text)


def _refuse_nul(pairs: Iterable[tuple[str, str]]) -> None:
    for name, value in pairs:
        if "\0" in name:
            text = f"The parameter name {shown(name)} holds a NUL character."
            raise SesError("InvalidQueryParameter", text)
        if "\0" in value:
            raise invalid_value(name, "the value holds a NUL character")
