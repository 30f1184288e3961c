"""NextToken: the position of the next page of a list, as an opaque text."""

import base64

from sendback.aws.errors import SesError


def make_token(position: str) -> str:
    """The NextToken of a page that ends at this position."""
    return base64.urlsafe_b64encode(position.encode()).decode("ascii")


def read_token(token: str) -> str:
    """Return the position. Raise `SesError` for a malformed token."""
    try:
        position = base64.b64decode(token.encode("ascii"), b"-_", validate=True).decode()
    except ValueError:
        raise _invalid_token() from None
    if not position.isprintable():
        raise _invalid_token()
    return position


def _invalid_token() -> SesError:
    return SesError("InvalidParameterValue", "Invalid NextToken")
