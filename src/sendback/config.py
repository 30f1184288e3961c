"""The settings: read once, checked once, passed down.

Defaults, then `sendback.toml`, then the environment (`SENDBACK_…`), then flags; the later wins.
Each setting is one line of the table below: its default, how its text is read, what is allowed
and what it is for. `sendback config show` and the documentation print this same table.
"""

import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ENVIRONMENT_PREFIX = "SENDBACK_"
DEFAULT_FILE = Path("sendback.toml")


class SettingError(ValueError):
    """A setting that cannot be used: which, its value, where it came from, what is allowed."""

    def __init__(self, name: str, value: object, origin: str, allowed: str) -> None:
        super().__init__(f"setting {name} = {value!r} (from {origin}) is not usable: {allowed}")
        self.name = name
        self.value = value
        self.origin = origin
        self.allowed = allowed


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
class Outbound:
    """Where bounces go: kept (`capture`), or to one relay."""

    relay_host: str | None = None
    relay_port: int = 25
    username: str | None = None
    password: str | None = None

    @property
    def captures(self) -> bool:
        return self.relay_host is None

    def __str__(self) -> str:
        if self.captures:
            return "capture"
        user = f"{self.username}:***@" if self.username else ""
        host = f"[{self.relay_host}]" if ":" in (self.relay_host or "") else self.relay_host
        return f"smtp://{user}{host}:{self.relay_port}"


# --- how texts are read: each raises ValueError with what is allowed -------------------------


def _listen(text: str) -> Listen:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
        raise ValueError("write HOST:PORT, for example 127.0.0.1:2525; port 0 picks a free one")
    return Listen(host.strip("[]"), int(port))


def _outbound(text: str) -> Outbound:
    allowed = "write capture, or smtp://[USER:PASSWORD@]HOST:PORT"
    if text == "capture":
        return Outbound()
    if text == "mx":
        raise ValueError("delivery by MX lookup is not built yet; " + allowed)
    url = urlsplit(text)
    try:
        port = url.port or 25
    except ValueError:
        raise ValueError(allowed) from None
    if url.scheme != "smtp" or not url.hostname or url.path.strip("/") or url.query:
        raise ValueError(allowed)
    if (url.username is None) != (url.password is None):
        raise ValueError("a relay that wants AUTH needs both: smtp://USER:PASSWORD@HOST:PORT")
    user = unquote(url.username) if url.username else None
    password = unquote(url.password) if url.password else None
    return Outbound(url.hostname, port, user, password)


_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def _duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text.strip())
    if not match or not text.strip():
        raise ValueError("write a duration such as 30s, 5m, 4h, 5d or 1h30m")
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _positive_duration(text: str) -> timedelta:
    duration = _duration(text)
    if not duration:
        raise ValueError("must be more than 0; write a duration such as 30s, 5m, 4h, 5d")
    return duration


def _signed_duration(text: str) -> timedelta:
    return -_duration(text[1:]) if text.startswith("-") else _duration(text)


def _whole(minimum: int, maximum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,15}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return int(text)

    return read


def _rate(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", text):
        raise ValueError("calls per second and account, for example 1 or 0.5; 0 is unlimited")
    return float(text)


def _flag(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise ValueError("write true or false")
    return values[text.lower()]


def _choice(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text.lower()

    return read


def _matching(pattern: str, allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(allowed)
        return text

    return read


def _database(text: str) -> str:
    if text and not text.startswith("sqlite:///"):
        raise ValueError("a URL of the form sqlite:///path/to/file.db (PostgreSQL is to come)")
    return text


def _endpoint(text: str) -> str:
    """As a target's default: empty, `aws`, or `endpoint:URL`."""
    if text in {"", "aws"}:
        return text
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError("aws, the URL of an endpoint such as http://127.0.0.1:5000, or empty")
    return f"endpoint:{text}"


def _url(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        url = urlsplit(text)
        if text and (url.scheme not in schemes or not url.hostname):
            raise ValueError(f"a URL of the form {schemes[0]}://HOST:PORT, or empty")
        return text.rstrip("/")

    return read


def _dns(text: str) -> tuple[tuple[str, int], ...] | str:
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


def _path(text: str) -> Path:
    if not text:
        raise ValueError("a path")
    return Path(text)


def _optional(exists: Callable[[Path], bool], allowed: str) -> Callable[[str], Path | None]:
    def read(text: str) -> Path | None:
        if text and not exists(Path(text)):
            raise ValueError(allowed)
        return Path(text) if text else None

    return read


_optional_file = _optional(Path.is_file, "the path of a readable PEM file, or empty")
_optional_folder = _optional(Path.is_dir, "the path of a folder, or empty")


def _setting(default: str, read: Callable[[str], Any], about: str) -> Any:
    # A default is read as any other text is, so that it cannot be of another kind.
    return field(
        default_factory=lambda: read(default),
        metadata={"default": default, "read": read, "about": about},
    )


_HOSTNAME = (
    r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


def _default_hostname() -> str:
    name = socket.gethostname()
    return name if re.fullmatch(_HOSTNAME, name) else "localhost"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting, read and checked."""

    data_dir: Path = _setting("sendback-data", _path, "Where everything is kept.")
    http_listen: Listen = _setting("127.0.0.1:4579", _listen, "The API and /healthz.")
    smtp_listen: Listen = _setting("127.0.0.1:2525", _listen, "Where mail is received.")
    outbound: Outbound = _setting(
        "capture", _outbound, "What becomes of bounces: kept (capture), or sent to a relay."
    )
    database: str = _setting("", _database, "Database URL; empty is SQLite in the data directory.")
    workers: int = _setting("1", _whole(1, 256), "Processes that serve on the same ports.")
    region: str = _setting(
        "us-east-1", _matching(r"[a-z0-9-]{1,40}", "a region such as us-east-1"), "AWS region."
    )
    account_id: str = _setting(
        "000000000000", _matching(r"\d{12}", "12 digits"), "The first account's ID."
    )
    hostname: str = _setting(
        _default_hostname(),
        _matching(_HOSTNAME, "a host name such as mx.example.com"),
        "What this server calls itself: banner, Received, Reporting-MTA, Message-ID.",
    )
    send_bounce_rate: float = _setting(
        "1", _rate, "SendBounce calls per second and account; 0 is unlimited."
    )
    development_key: bool = _setting(
        "true", _flag, "Whether the key pair test/test is known. Only on loopback."
    )
    bounce_window: timedelta = _setting(
        "24h", _positive_duration, "For how long after receipt a message can be bounced."
    )
    retention: timedelta = _setting(
        "24h", _positive_duration, "For how long received messages are kept."
    )
    history: timedelta = _setting(
        "14d",
        _positive_duration,
        "For how long finished bounces and the records of received messages are kept.",
    )
    receive_without_rules: bool = _setting(
        "true",
        _flag,
        "Whether mail for verified identities is received while no rule set is active. SES: false.",
    )
    processing_tasks: int = _setting(
        "50", _whole(1, 10_000), "Messages in each worker whose rules are worked off side by side."
    )
    action_retry_first: timedelta = _setting(
        "20s", _positive_duration, "Wait before a rule's action that failed is tried again."
    )
    action_retry_longest: timedelta = _setting(
        "20m", _positive_duration, "Longest wait between the attempts at an action."
    )
    action_give_up_after: timedelta = _setting(
        "4h", _positive_duration, "When an action is given up and recorded as expired."
    )
    check_targets: bool = _setting(
        "true", _flag, "Whether a rule's buckets, topics and functions must be there to write it."
    )
    s3_endpoint: str = _setting(
        "",
        _endpoint,
        "Where unmapped buckets are: aws, a URL, or empty: aws unless outbound captures.",
    )
    sns_endpoint: str = _setting("", _endpoint, "The same for topics.")
    lambda_endpoint: str = _setting("", _endpoint, "The same for functions.")
    mailbox_server: str = _setting(
        "", _url("smtp"), "SMTP server for WorkMail and Connect actions: smtp://HOST:PORT."
    )
    private_targets: str = _setting(
        "auto",
        _choice("auto", "true", "false"),
        "Whether webhooks may be on loopback and private addresses; auto: if outbound captures.",
    )
    public_url: str = _setting(
        "",
        _url("http", "https"),
        "This server's URL as others see it; empty is where it listens. For SNS signatures.",
    )
    sns_signature_version: str = _setting(
        "2", _choice("1", "2"), "SignatureVersion of SNS messages: 1 (SHA-1) or 2 (SHA-256)."
    )
    dns: tuple[tuple[str, int], ...] | str = _setting(
        "system",
        _dns,
        "DNS servers for SPF, DKIM and DMARC: system, off, or addresses with ports.",
    )
    dns_budget: timedelta = _setting(
        "5s", _positive_duration, "For how long the look-ups of one message may take."
    )
    rspamd: str = _setting("", _url("http"), "URL of rspamd, for rules that scan; empty: none.")
    clamd: str = _setting(
        "",
        _matching(r"|/.+|[^/:]+:\d+", "HOST:PORT, the path of a socket, or empty"),
        "Address of clamd, for rules that scan; empty: none.",
    )
    smtp_max_size: int = _setting(
        str(40 * 2**20), _whole(1024, 2**31), "Octets in a message (RFC 1870)."
    )
    smtp_max_recipients: int = _setting("1000", _whole(100, 100_000), "Recipients of a message.")
    smtp_max_errors: int = _setting("100", _whole(1, 10_000), "Errors before a client is cut off.")
    smtp_max_connections: int = _setting("1000", _whole(1, 100_000), "Connections, in each worker.")
    smtp_max_client_connections: int = _setting(
        "100", _whole(1, 100_000), "Connections of one client IP address, in each worker."
    )
    smtp_idle_timeout: timedelta = _setting(
        "5m", _positive_duration, "Silence after which a client is cut off (RFC 5321 §4.5.3.2)."
    )
    smtp_session_timeout: timedelta = _setting(
        "1h", _positive_duration, "For how long one SMTP session may last."
    )
    tls_certificate: Path | None = _setting(
        "", _optional_file, "PEM certificate chain for STARTTLS; empty generates one."
    )
    tls_key: Path | None = _setting("", _optional_file, "PEM private key for STARTTLS.")
    honour_notify_never: bool = _setting(
        "false",
        _flag,
        "Whether SendBounce is refused for a recipient whose sender wants no notification.",
    )
    bounce_language: str = _setting(
        "auto",
        _matching(r"auto|[a-z]{2,8}(-[a-z0-9]{1,8})*", "auto, or a language such as de"),
        "Language of bounces: one of those there are, or auto, what the original asks for.",
    )
    bounce_texts: Path | None = _setting(
        "", _optional_folder, "Folder of files LANGUAGE.toml with texts for bounces."
    )
    return_content: str = _setting(
        "headers",
        _choice("headers", "full"),
        "What a bounce returns when the sender did not say (RET): headers, or small mails whole.",
    )
    relay_tls: str = _setting(
        "opportunistic",
        _choice("opportunistic", "verify"),
        "STARTTLS at the relay: when offered, or always and with a valid certificate.",
    )
    delivery_connections: int = _setting(
        "20", _whole(1, 1000), "Connections to the relay, in each worker."
    )
    delivery_timeout: timedelta = _setting(
        "60s", _positive_duration, "For how long one SMTP command of a delivery may take."
    )
    retry_first: timedelta = _setting("60s", _positive_duration, "Wait before the first retry.")
    retry_longest: timedelta = _setting("4h", _positive_duration, "Longest wait between retries.")
    give_up_after: timedelta = _setting("5d", _positive_duration, "When a bounce is given up.")
    lease: timedelta = _setting(
        "30s", _positive_duration, "For how long a worker's claim on a queue row lasts unrenewed."
    )
    clock_offset: timedelta = _setting(
        "0s", _signed_duration, "Shifts the clock (not that of signatures): 24h, -1h. For tests."
    )
    log_level: str = _setting(
        "info", _choice("debug", "info", "warning", "error"), "What is logged."
    )

    @property
    def allows_private_targets(self) -> bool:
        if self.private_targets == "auto":
            return self.outbound.captures
        return self.private_targets == "true"

    def endpoint(self, given: str) -> str:
        """What an unmapped bucket, topic or function is: never AWS while nothing is to go out."""
        return given or ("" if self.outbound.captures else "aws")

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data_dir.absolute() / 'sendback.db'}"


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings, the text that each was given as, and where that came from."""

    settings: Settings
    texts: Mapping[str, str]
    origins: Mapping[str, str]


def load(
    flags: Mapping[str, str | None] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> LoadedSettings:
    """Reads all sources and checks each setting. Raises `SettingError`."""
    texts: dict[str, str] = {}
    origins: dict[str, str] = {}
    table = {entry.name: entry for entry in fields(Settings)}
    sources = (
        ("default", {name: entry.metadata["default"] for name, entry in table.items()}),
        *_file_source(file, table.keys()),
        ("environment", _from_environment(os.environ if environ is None else environ, table)),
        ("flag", {name: text for name, text in (flags or {}).items() if text is not None}),
    )
    for origin, values in sources:
        for name, text in values.items():
            texts[name], origins[name] = text, origin
    read: dict[str, Any] = {}
    for name, entry in table.items():
        try:
            read[name] = entry.metadata["read"](texts[name])
        except ValueError as error:
            raise SettingError(name, texts[name], origins[name], str(error)) from None
    settings = Settings(**read)
    _check_together(settings, origins)
    return LoadedSettings(settings, texts, origins)


def _from_environment(environ: Mapping[str, str], table: Mapping[str, Any]) -> dict[str, str]:
    names = {ENVIRONMENT_PREFIX + name.upper(): name for name in table}
    return {name: environ[variable] for variable, name in names.items() if variable in environ}


def _file_source(file: Path | None, known: Any) -> list[tuple[str, dict[str, str]]]:
    path = file or DEFAULT_FILE
    if not path.is_file():
        if file:
            raise SettingError("config", str(file), "flag", "the path of a readable TOML file")
        return []
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingError("config", str(path), "file", f"a TOML file: {error}") from None
    unknown = sorted(content.keys() - known)
    if unknown:
        raise SettingError(unknown[0], content[unknown[0]], str(path), "no setting has this name")
    return [(str(path), {name: _toml_text(value) for name, value in content.items()})]


def _toml_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    if settings.development_key and not settings.http_listen.is_loopback:
        raise SettingError(
            "http_listen",
            str(settings.http_listen),
            origins["http_listen"],
            "with the development key test/test only loopback is allowed; set development_key to "
            "false and make a key with `sendback keys create`",
        )
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        name = "tls_key" if settings.tls_key is None else "tls_certificate"
        raise SettingError(name, "", origins[name], "tls_certificate and tls_key go together")
    if settings.retention < settings.bounce_window:
        raise SettingError(
            "retention",
            str(settings.retention),
            origins["retention"],
            f"at least bounce_window ({settings.bounce_window})",
        )
