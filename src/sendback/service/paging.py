"""NextToken: the position of the next page of a list, as an opaque text."""

import base64

from sendback.aws.errors import SesError, shown


def make_token(position: str) -> str:
    """The NextToken of a page that ends at this position."""
    return base64.urlsafe_b64encode(position.encode()).decode("ascii")


def read_token(token: str) -> str:
    """Return the position. Raise `SesError` for a malformed token."""
    try:
        position = base64.b64decode(token.encode("ascii"), b"-_", validate=True).decode()
    except ValueError:
        raise invalid_token(token) from None
    if not position.isprintable():
        raise invalid_token(token)
    return position


def invalid_token(token: str) -> SesError:
    """Return InvalidParameterValue for a NextToken that no call returned."""
    return SesError("InvalidParameterValue", f"Invalid NextToken <{shown(token)}>.")
