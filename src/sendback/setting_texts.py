"""How the texts of settings are read: each reader raises ValueError with what is allowed."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen; port 0 picks a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Smarthost:
    """A server that takes all outbound mail; `implicit_tls` from the first octet (RFC 8314)."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    implicit_tls: bool = False

    @property
    def is_loopback(self) -> bool:
        return Listen(self.host, self.port).is_loopback

    def __str__(self) -> str:
        user = f"{self.username}:***@" if self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "smtps" if self.implicit_tls else "smtp"
        return f"{scheme}://{user}{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Outbound:
    """Where mail goes: kept (`capture`), to smarthosts, the first that takes it, or by MX."""

    smarthosts: tuple[Smarthost, ...] = ()
    by_mx: bool = False

    @property
    def captures(self) -> bool:
        return not (self.smarthosts or self.by_mx)

    def __str__(self) -> str:
        return ",".join(map(str, self.smarthosts)) or ("mx" if self.by_mx else "capture")


def listen(text: str) -> Listen:
    """HOST:PORT."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
        raise ValueError("write HOST:PORT, for example 127.0.0.1:2525; port 0 picks a free one")
    return Listen(host.strip("[]"), int(port))


def outbound(text: str) -> Outbound:
    """What becomes of outbound mail."""
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
    url = urlsplit(text)
    is_smtps = url.scheme == "smtps"
    try:
        port = url.port or (465 if is_smtps else 25)
    except ValueError:
        raise ValueError(allowed) from None
    is_smtp = url.scheme == "smtp" or is_smtps
    if not is_smtp or not url.hostname or url.path.strip("/") or url.query:
        raise ValueError(allowed)
    if (url.username is None) != (url.password is None):
        raise ValueError("a relay that wants AUTH needs both: smtp://USER:PASSWORD@HOST:PORT")
    user = unquote(url.username) if url.username else None
    password = unquote(url.password) if url.password else None
    return Smarthost(url.hostname, port, user, password, is_smtps)


_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def duration(text: str) -> timedelta:
    """A duration such as 30s or 1h30m."""
    match = _DURATION.fullmatch(text.strip())
    if not match or not text.strip():
        raise ValueError("write a duration such as 30s, 5m, 4h, 5d or 1h30m")
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def positive_duration(text: str) -> timedelta:
    """A duration that is not 0."""
    read = duration(text)
    if not read:
        raise ValueError("must be more than 0; write a duration such as 30s, 5m, 4h, 5d")
    return read


def signed_duration(text: str) -> timedelta:
    """A duration that may be negative."""
    return -duration(text[1:]) if text.startswith("-") else duration(text)


def whole(minimum: int, maximum: int) -> Callable[[str], int]:
    """A whole number in a range."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,15}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return int(text)

    return read


def rate(text: str) -> float:
    """Calls per second; 0 is unlimited."""
    if not re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", text):
        raise ValueError("calls per second and account, for example 1 or 0.5; 0 is unlimited")
    return float(text)


def flag(text: str) -> bool:
    """True or false."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise ValueError("write true or false")
    return values[text.lower()]


def choice(*allowed: str) -> Callable[[str], str]:
    """One of the words, in lower case."""

    def read(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text.lower()

    return read


def matching(pattern: str, allowed: str) -> Callable[[str], str]:
    """Text that matches the pattern as a whole."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(allowed)
        return text

    return read


def database(text: str) -> str:
    """A database URL."""
    if text and not text.startswith("sqlite:///"):
        raise ValueError("a URL of the form sqlite:///path/to/file.db (PostgreSQL is to come)")
    return text


def endpoint(text: str) -> str:
    """As a target's default: empty, `aws`, or `endpoint:URL`."""
    if text in {"", "aws"}:
        return text
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError("aws, the URL of an endpoint such as http://127.0.0.1:5000, or empty")
    return f"endpoint:{text}"


def url(*schemes: str) -> Callable[[str], str]:
    """A URL of one of the schemes, or empty."""

    def read(text: str) -> str:
        url = urlsplit(text)
        if text and (url.scheme not in schemes or not url.hostname):
            raise ValueError(f"a URL of the form {schemes[0]}://HOST:PORT, or empty")
        return text.rstrip("/")

    return read


def dns(text: str) -> tuple[tuple[str, int], ...] | str:
    """`system`, `off`, or the servers as (address, port)."""
    if text in {"system", "off"}:
        return text
    allowed = "system, off, or addresses such as 127.0.0.1:53,[::1]:5353"
    servers = []
    for part in text.split(","):
        if not re.fullmatch(r"\[[0-9A-Fa-f:]+\](:\d{1,5})?|[0-9.]+(:\d{1,5})?", part.strip()):
            raise ValueError(allowed)
        host, _, port = part.strip().rpartition(":") if part.strip()[-1] != "]" else (part, "", "")
        if not host:
            host, port = port, "53"
        try:
            address = str(ipaddress.ip_address(host.strip().strip("[]")))
        except ValueError:
            raise ValueError(allowed) from None
        servers.append((address, int(port or 53)))
    return tuple(servers)


def path(text: str) -> Path:
    """A path."""
    if not text:
        raise ValueError("a path")
    return Path(text)


def addresses(text: str) -> tuple[str, ...]:
    """An IPv4 address, an IPv6 address, both with a comma between them, or empty."""
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
    """`DOMAIN=LEVEL,…`: by name, `.name` for what is below it, `*` for all others."""
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
    """A path, or empty."""
    return Path(text) if text else None


def mailbox(text: str) -> str:
    """An address, perhaps with a name before it: `Mail Team <team@example.com>`; or empty."""
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
