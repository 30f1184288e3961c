"""Removal of passwords from texts in errors, logs and `sendback config show`.

A URL may have a user and a password before its host, and a token in its query. A valid URL is shown
without them. An invalid one may have its password anywhere, so only its scheme is shown.
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
    """Return the parts of a URL. Raise `ValueError`, whose text does not contain the URL.

    `urllib.parse.urlsplit` quotes user and password in some of its errors.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port, parts.hostname
    except ValueError:
        raise ValueError("it cannot be read as a URL") from None
    return parts


def shown_url(text: str) -> str:
    """Return the URL without user, password, query and fragment."""
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
    """Return an invalid value of a URL setting without passwords.

    A word and URLs without user and query are returned unchanged, of others only the scheme.
    """
    urls = text.split(",")
    if _WORD.fullmatch(text) or all(_PLAIN_URL.fullmatch(url.strip()) for url in urls):
        return text
    scheme = _SCHEME.match(text)
    return f"{scheme[1]}://{HIDDEN}" if scheme else HIDDEN


def without_credentials(text: str) -> str:
    """Return the text without users and passwords of URLs, and without a trace of them."""
    return _USER.sub("//", text)


def without_users(text: str) -> str:
    """Return the text, such as a library's error, without users and passwords of URLs."""
    return _USER.sub(f"//{HIDDEN}@", text)
