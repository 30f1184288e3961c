"""What is shown of texts that hold a password: in errors, logs and `sendback config show`.

A URL may have a user and a password before its host, and a token in its query. One that can be
read is shown without them; one that cannot be read may hold its password anywhere, so that of it
only the scheme is shown.
"""

import re
from urllib.parse import SplitResult, urlsplit

HIDDEN = "***"
_WORD = re.compile(r"[A-Za-z0-9_.-]{0,64}")
_PLAIN_URL = re.compile(
    r"[a-z][a-z0-9+]{0,19}://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)?(?::[0-9]{1,5})?(?:/[^?#@]*)?"
)
_USER = re.compile(r"//[^/\s@]*@")
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+]{0,19}):/")


def split_url(text: str) -> SplitResult:
    """Return the parts of a URL. Raises `ValueError`, whose text does not repeat the URL.

    `urllib.parse.urlsplit` quotes user and password in some of its errors.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port, parts.hostname
    except ValueError:
        raise ValueError("it cannot be read as a URL") from None
    return parts


def shown_url(text: str) -> str:
    """Return a URL for people: without user, password, query and fragment."""
    try:
        parts = split_url(text)
    except ValueError:
        return shown_wrong(text)
    if not parts.scheme or not parts.hostname or "@" in parts.path:
        return shown_wrong(text)
    _, at, host = parts.netloc.rpartition("@")
    user = f"{HIDDEN}@" if at else ""
    query = f"?{HIDDEN}" if parts.query else ""
    return f"{parts.scheme}://{user}{host}{parts.path}{query}"


def shown_wrong(text: str) -> str:
    """Return what may be shown of a value that is wrong where a URL with a password may be.

    A word and URLs without user and query are shown as they are, of others the scheme.
    """
    urls = text.split(",")
    if _WORD.fullmatch(text) or all(_PLAIN_URL.fullmatch(url.strip()) for url in urls):
        return text
    scheme = _SCHEME.match(text)
    return f"{scheme[1]}://{HIDDEN}" if scheme else HIDDEN


def without_users(text: str) -> str:
    """Return text of a library, an error say, with the users and passwords of URLs in it hidden."""
    return _USER.sub(f"//{HIDDEN}@", text)
