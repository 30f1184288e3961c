"""Browsers whose users have signed in."""

from tests.partners.console import ConsoleClient
from tests.partners.server import Server

FIRST_ACCOUNT = "000000000000"


def signed_in(
    server: Server, account_id: str = FIRST_ACCOUNT, user: str = "root", *, sees_mail: bool = True
) -> ConsoleClient:
    """A browser whose user has signed in with a new access key; both are added if need be.

    The first page is that of the mail, which not every user may see.
    """
    issued = server.issue(account_id, user)
    client = ConsoleClient(server.endpoint)
    client.get("/console/login")
    page = client.post(
        "/console/login",
        {"by": "key", "access_key": issued.key.access_key, "secret": issued.secret},
    )
    assert page.status == (200 if sees_mail else 403), page.text
    return client
