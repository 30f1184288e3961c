"""Readers of the texts of settings. Each raises `ValueError` with what is allowed."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote

from sendback.config.types import ContentAddress, Listen, Outbound, Smarthost
from sendback.redaction import split_url

_MAX_PORT = 65535
_LISTEN = re.compile(r"([^\s\x00-\x1f\x7f-\x9f]+):([0-9]{1,5})")


def listen(text: str) -> Listen:
    """Read HOST:PORT."""
    match = _LISTEN.fullmatch(text)
    if match is None or int(match[2]) > _MAX_PORT:
        raise ValueError("write HOST:PORT, for example 127.0.0.1:2525; port 0 picks a free one")
    return Listen(match[1].strip("[]"), int(match[2]))


def outbound(text: str) -> Outbound:
    """Read `capture`, `mx`, or the URLs of relays with commas between them."""
    if text == "capture":
        return Outbound()
    if text == "mx":
        return Outbound(by_mx=True)
    return Outbound(tuple(_smarthost(part.strip()) for part in text.split(",")))


def _smarthost(text: str) -> Smarthost:
    allowed = (
        "write capture, mx, or smtp://[USER:PASSWORD@]HOST:PORT (smtps:// for TLS from the first "
        "octet); several, in their order, with commas between them"
    )
    try:
        url = split_url(text)
    except ValueError:
        raise ValueError(allowed) from None
    is_smtps = url.scheme == "smtps"
    port = url.port or (465 if is_smtps else 25)
    is_smtp = url.scheme == "smtp" or is_smtps
    if not is_smtp or not url.hostname or url.path.strip("/") or url.query:
        raise ValueError(allowed)
    if (url.username is None) != (url.password is None):
        raise ValueError("a relay that wants AUTH needs both: smtp://USER:PASSWORD@HOST:PORT")
    user = unquote(url.username) if url.username else None
    password = unquote(url.password) if url.password else None
    return Smarthost(url.hostname, port, user, password, is_smtps)


_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s?)?")
_LONGEST = timedelta(days=36_500)  # a date that far from now still has a year of four digits


def duration(text: str) -> timedelta:
    """Read a duration such as 30s or 1h30m."""
    match = _DURATION.fullmatch(text.strip())
    if not match or not text.strip():
        raise ValueError("write a duration such as 30s, 5m, 4h, 5d or 1h30m")
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    read = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if read > _LONGEST:
        raise ValueError(f"at most {_LONGEST.days}d")
    return read


def positive_duration(text: str) -> timedelta:
    """Read a duration that is not 0."""
    read = duration(text)
    if not read:
        raise ValueError("must be more than 0; write a duration such as 30s, 5m, 4h, 5d")
    return read


def signed_duration(text: str) -> timedelta:
    """Read a duration that may be negative."""
    return -duration(text[1:]) if text.startswith("-") else duration(text)


def whole(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return a reader of whole numbers in a range."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return int(text)

    return read


def rate(text: str) -> float:
    """Read a rate in calls per second; 0 is unlimited."""
    if not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", text):
        raise ValueError("calls per second and account, for example 1 or 0.5; 0 is unlimited")
    return float(text)


def positive_number(text: str) -> float:
    """Read a number that is not 0."""
    if not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", text) or not float(text):
        raise ValueError("write a number above 0, for example 14 or 0.5")
    return float(text)


def flag(text: str) -> bool:
    """Read true or false."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise ValueError("write true or false")
    return values[text.lower()]


def choice(*allowed: str) -> Callable[[str], str]:
    """Return a reader of these words, which it returns in lower case."""

    def read(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text.lower()

    return read


def matching(pattern: str, allowed: str) -> Callable[[str], str]:
    """Return a reader of texts that match the whole pattern."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(allowed)
        return text

    return read


def database(text: str) -> str:
    """Read a database URL, or empty. `postgres://` is another name of `postgresql://`.

    Parameters of PostgreSQL are checked when the database is opened, by its own library.
    """
    if text and not text.startswith(("sqlite:///", "postgresql://", "postgres://")):
        raise ValueError(
            "a URL such as sqlite:///path/to/file.db or postgresql://user@host:5432/database"
        )
    scheme, separator, rest = text.partition("://")
    return f"postgresql://{rest}" if scheme == "postgres" and separator else text


_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()/-]{0,400}")
_CONTENT_URL = (
    "database, directory, or the URL of an object store such as "
    "s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION, gs://BUCKET/PREFIX or "
    "az://CONTAINER/PREFIX?account_name=NAME"
)
# The parameters of the URL of an object store: obstore's names of options, and of credentials.
_CONTENT_OPTIONS: Mapping[str, frozenset[str]] = {
    "s3": frozenset({"endpoint", "region", "virtual_hosted_style_request"}),
    "gs": frozenset({"base_url"}),
    "az": frozenset({"account_name", "endpoint", "use_emulator"}),
}
_CONTENT_SECRETS: Mapping[str, frozenset[str]] = {
    "s3": frozenset({"access_key_id", "secret_access_key", "session_token"}),
    "gs": frozenset({"service_account_key"}),
    "az": frozenset({"account_key", "sas_key"}),
}


def content_store(text: str) -> ContentAddress:
    """Read where large bodies are stored: a word, the URL of an object store, or empty."""
    if text in {"", "database", "directory"}:
        return ContentAddress(text)
    try:
        parts = split_url(text)
    except ValueError:
        raise ValueError(_CONTENT_URL) from None
    _, _, bucket = parts.netloc.rpartition("@")
    prefix = parts.path.strip("/")
    names = _CONTENT_OPTIONS.get(parts.scheme)
    if names is None or not _BUCKET.fullmatch(bucket) or not _PREFIX.fullmatch(prefix):
        raise ValueError(_CONTENT_URL)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = _CONTENT_SECRETS[parts.scheme]
    secrets = {name: given.pop(name) for name in known if name in given} | dict(_users(parts))
    if given.keys() - names:
        raise ValueError(f"of {parts.scheme}:// URLs the parameters are {', '.join(sorted(names))}")
    for name in ("endpoint", "base_url"):
        if name in given:
            _checked_url(given[name], ("http", "https"), f"{name} must be the URL of a server")
    return ContentAddress(parts.scheme, bucket, prefix, given, secrets)


def _users(parts: SplitResult) -> Mapping[str, str]:
    """Return the credentials before the host of an S3 URL. Raise `ValueError`."""
    if parts.username is None:
        return {}
    if parts.scheme != "s3" or parts.password is None:
        raise ValueError("a URL with credentials is s3://KEY:SECRET@BUCKET/PREFIX")
    return {
        "access_key_id": unquote(parts.username),
        "secret_access_key": unquote(parts.password),
    }


def endpoint(text: str) -> str:
    """Return the default of a target: empty, `aws`, or `endpoint:URL`."""
    if text in {"", "aws"}:
        return text
    allowed = "aws, the URL of an endpoint such as http://127.0.0.1:5000, or empty"
    return f"endpoint:{_checked_url(text, ('http', 'https'), allowed)}"


def _checked_url(text: str, schemes: tuple[str, ...], allowed: str) -> str:
    """Return the URL unchanged. Raise `ValueError` with `allowed`."""
    try:
        parts = split_url(text)
    except ValueError:
        raise ValueError(allowed) from None
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(allowed)
    return text


def url(*schemes: str) -> Callable[[str], str]:
    """Return a reader of URLs with one of the schemes, or empty."""

    def read(text: str) -> str:
        if not text:
            return text
        allowed = f"a URL of the form {schemes[0]}://HOST:PORT, or empty"
        return _checked_url(text, schemes, allowed).rstrip("/")

    return read


_DNS_PORT = 53
_DNS_SERVER = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?")


def dns(text: str) -> tuple[tuple[str, int], ...] | str:
    """Read `system`, `off`, or servers, returned as (address, port)."""
    if text in {"system", "off"}:
        return text
    allowed = "system, off, or addresses such as 127.0.0.1:53,[::1]:5353"
    servers = []
    for part in text.split(","):
        match = _DNS_SERVER.fullmatch(part.strip())
        port = int(match[3] or _DNS_PORT) if match else 0
        if match is None or not 0 < port <= _MAX_PORT:
            raise ValueError(allowed)
        try:
            address = str(ipaddress.ip_address(match[1] or match[2]))
        except ValueError:
            raise ValueError(allowed) from None
        servers.append((address, port))
    return tuple(servers)


def variable_names(text: str) -> tuple[str, ...]:
    """Read names of environment variables with commas between them, or empty."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("names of variables with commas between them, or empty")
        if name.upper().startswith("SENDBACK_"):
            raise ValueError(
                "not a setting of this server (SENDBACK_…): functions must not see its secrets"
            )
    return names


def host_names(text: str) -> tuple[str, ...]:
    """Read host names or IP addresses, without ports, with commas between them, or empty."""
    names = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for name in names:
        if not re.fullmatch(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|[0-9a-f:]*:[0-9a-f:.]*", name):
            raise ValueError("host names without ports, with commas between them, or empty")
    return names


def path(text: str) -> Path:
    """Read a path."""
    if not text:
        raise ValueError("a path")
    return Path(text)


def addresses(text: str) -> tuple[str, ...]:
    """Read an IPv4 address, an IPv6 address, both with a comma between them, or empty."""
    allowed = "an IP address such as 192.0.2.1, one of each kind with a comma, or empty"
    try:
        found = [ipaddress.ip_address(part.strip()) for part in text.split(",") if text]
    except ValueError:
        raise ValueError(allowed) from None
    if len({ip.version for ip in found}) < len(found):
        raise ValueError(allowed)
    return tuple(map(str, found))


_TLS_LEVELS = ("opportunistic", "encrypted", "verified")


def tls_levels(text: str) -> Mapping[str, str]:
    """Read `DOMAIN=LEVEL,…`: a name, `.name` for its subdomains, `*` for all others."""
    levels = {}
    for part in text.split(","):
        name, equals, level = part.strip().partition("=")
        is_name = re.fullmatch(r"\*|\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", name.strip())
        if text and not (equals and is_name and level.strip() in _TLS_LEVELS):
            raise ValueError(
                "write DOMAIN=LEVEL with commas between, LEVEL one of "
                f"{', '.join(_TLS_LEVELS)}: bank.example=verified,.gov.example=encrypted"
            )
        if text:
            levels[name.strip().lower()] = level.strip()
    return levels


def optional_path(text: str) -> Path | None:
    """Read a path, or empty."""
    return Path(text) if text else None


def mailbox(text: str) -> str:
    """Read an address, with or without a name (`Mail Team <team@example.com>`), or empty."""
    if text and not re.fullmatch(r"(?:[^<>\r\n]*<)?[^<>@\s]+@[^<>@\s]+>?", text):
        raise ValueError("an address such as Mail Team <team@example.com>, or empty")
    return text


def _optional(exists: Callable[[Path], bool], allowed: str) -> Callable[[str], Path | None]:
    def read(text: str) -> Path | None:
        if text and not exists(Path(text)):
            raise ValueError(allowed)
        return Path(text) if text else None

    return read


optional_file = _optional(Path.is_file, "the path of a readable PEM file, or empty")
optional_folder = _optional(Path.is_dir, "the path of a folder, or empty")
