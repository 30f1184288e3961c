"""Errors of the console: each has a page of its own."""

from sendback.errors import SendbackError


class PageError(SendbackError):
    """What a page cannot do, with the HTTP status: shown as a page, in the console's form.

    `advice` says what the reader can do.
    """

    def __init__(self, status: int, title: str, advice: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.advice = advice


def not_found(what: str) -> PageError:
    """Return the error for a thing that does not exist, or is another account's."""
    return PageError(
        404, f"There is no such {what}", "It may have been deleted, or belong to another account."
    )


def not_permitted(what: str) -> PageError:
    """Return the error for what the policies of the user do not allow."""
    return PageError(
        403, "You may not do this", f"Your policies do not allow {what}. Ask the account's owner."
    )
