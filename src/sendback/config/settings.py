"""The settings: read once, checked once, passed down.

Defaults, then `sendback.toml`, then the environment (`SENDBACK_…`), then flags; the later wins.
Each setting is one line of the table below: its default, how its text is read, what is allowed
and what it is for. `sendback config show` and the documentation print this same table.
"""

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sendback.config import readers
from sendback.config.types import Listen, Outbound
from sendback.errors import SendbackError

_SHOWN = 200


class SettingError(SendbackError, ValueError):
    """A setting that cannot be used: which, its value, where it came from, what is allowed.

    `value` is what may be shown of it.
    """

    def __init__(self, name: str, value: object, origin: str, allowed: str) -> None:
        shown = repr(value)
        if len(shown) > _SHOWN:
            shown = shown[:_SHOWN] + "…"
        super().__init__(f"setting {name} = {shown} (from {origin}) is not usable: {allowed}")
        self.name = name
        self.value = value
        self.origin = origin
        self.allowed = allowed


def _setting(
    default: str,
    read: Callable[[str], Any],
    about: str,
    *,
    hidden: bool = False,
    is_url: bool = False,
) -> Any:
    """One line of the table.

    The value of a hidden one is never shown, a URL without user, password and query.
    """
    # A default is read as any other text is, so that it cannot be of another kind.
    return field(
        default_factory=lambda: read(default),
        metadata={
            "default": default,
            "read": read,
            "about": about,
            "hidden": hidden,
            "is_url": is_url,
        },
        repr=not (hidden or is_url),
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

    data_dir: Path = _setting("sendback-data", readers.path, "Where everything is kept.")
    http_listen: Listen = _setting("127.0.0.1:4579", readers.listen, "The API and /healthz.")
    smtp_listen: Listen = _setting("127.0.0.1:2525", readers.listen, "Where mail is received.")
    outbound: Outbound = _setting(
        "capture",
        readers.outbound,
        "What becomes of bounces: kept (capture), sent to the MX of each domain (mx), or to relays "
        "(smtp://HOST:PORT).",
        is_url=True,
    )
    database: str = _setting(
        "", readers.database, "Database URL; empty is SQLite in the data directory.", is_url=True
    )
    workers: int = _setting("1", readers.whole(1, 256), "Processes that serve on the same ports.")
    worker_timeout: timedelta = _setting(
        "30s",
        readers.duration,
        "Time without a sign of life after which a worker is replaced, or a single process ends; "
        "0s: never.",
    )
    share_data_dir: bool = _setting(
        "false", readers.flag, "Whether several servers use the data directory, all with true."
    )
    region: str = _setting(
        "us-east-1",
        readers.matching(r"[a-z0-9-]{1,40}", "a region such as us-east-1"),
        "AWS region.",
    )
    account_id: str = _setting(
        "000000000000", readers.matching(r"\d{12}", "12 digits"), "The first account's ID."
    )
    hostname: str = _setting(
        _default_hostname(),
        readers.matching(_HOSTNAME, "a host name such as mx.example.com"),
        "What this server calls itself: banner, Received, Reporting-MTA, Message-ID.",
    )
    send_bounce_rate: float = _setting(
        "1", readers.rate, "SendBounce calls per second and account; 0 is unlimited."
    )
    development_key: bool = _setting(
        "true", readers.flag, "Whether the key pair test/test is known. Only on loopback."
    )
    secret: str = _setting(
        "",
        readers.matching(r"|[0-9A-Fa-f]{64}", "64 hexadecimal digits (openssl rand -hex 32)"),
        "The secret that keys are sealed with; empty is what secret_file holds.",
        hidden=True,
    )
    secret_file: Path | None = _setting(
        "",
        readers.optional_path,
        "File of that secret, made if it is not there; empty: secret.key in the data directory.",
    )
    verification: str = _setting(
        "auto",
        readers.choice("auto", "at_once", "proved"),
        "How identities are verified: by mail and DNS, or at once; auto: at once while outbound "
        "captures.",
    )
    verification_sender: str = _setting(
        "",
        readers.mailbox,
        "Who writes verification mails; empty is no-reply@ and the hostname.",
    )
    verification_link_lasts: timedelta = _setting(
        "24h", readers.positive_duration, "For how long the link in a verification mail works."
    )
    verification_account_limit: int = _setting(
        "50",
        readers.whole(0, 1_000_000),
        "Verification mails that an account may send in an hour; 0 is unlimited.",
    )
    verification_address_limit: int = _setting(
        "5",
        readers.whole(0, 1_000_000),
        "Verification mails to one address in a day, however it is spelt; 0 is unlimited.",
    )
    verification_limit: int = _setting(
        "500",
        readers.whole(0, 1_000_000),
        "Verification mails of all accounts in an hour; 0 is unlimited.",
    )
    dkim_ed25519: bool = _setting(
        "false", readers.flag, "Whether domains get an Ed25519 DKIM key beside the RSA one."
    )
    bounce_window: timedelta = _setting(
        "24h", readers.positive_duration, "For how long after receipt a message can be bounced."
    )
    retention: timedelta = _setting(
        "24h", readers.positive_duration, "For how long received messages are kept."
    )
    history: timedelta = _setting(
        "14d",
        readers.positive_duration,
        "For how long finished bounces and the records of received messages are kept.",
    )
    receive_without_rules: bool = _setting(
        "true",
        readers.flag,
        "Whether mail for verified identities is received while no rule set is active. SES: false.",
    )
    processing_tasks: int = _setting(
        "50",
        readers.whole(1, 10_000),
        "Messages in each worker whose rules are worked off side by side.",
    )
    action_retry_first: timedelta = _setting(
        "20s", readers.positive_duration, "Wait before a rule's action that failed is tried again."
    )
    action_retry_longest: timedelta = _setting(
        "20m", readers.positive_duration, "Longest wait between the attempts at an action."
    )
    action_give_up_after: timedelta = _setting(
        "4h", readers.positive_duration, "When an action is given up and recorded as expired."
    )
    function_failure: str = _setting(
        "continue",
        readers.choice("continue", "stop"),
        "What a function counts as that decides and cannot be called: continue (as SES), or stop, "
        "the end of the rule set.",
    )
    check_targets: bool = _setting(
        "true",
        readers.flag,
        "Whether a rule's buckets, topics and functions must be there to write it.",
    )
    s3_endpoint: str = _setting(
        "",
        readers.endpoint,
        "Where unmapped buckets are: aws, a URL, or empty: aws unless outbound captures.",
        is_url=True,
    )
    sns_endpoint: str = _setting("", readers.endpoint, "The same for topics.", is_url=True)
    lambda_endpoint: str = _setting("", readers.endpoint, "The same for functions.", is_url=True)
    function_environment: tuple[str, ...] = _setting(
        "",
        readers.variable_names,
        "Environment variables of the server that local functions get too, with commas between.",
    )
    mailbox_server: str = _setting(
        "",
        readers.url("smtp"),
        "SMTP server for WorkMail and Connect actions: smtp://HOST:PORT.",
        is_url=True,
    )
    private_targets: str = _setting(
        "auto",
        readers.choice("auto", "true", "false"),
        "Whether webhooks and MX may be on loopback and private addresses; auto: if outbound "
        "captures.",
    )
    public_url: str = _setting(
        "",
        readers.url("http", "https"),
        "This server's URL as others see it; empty is where it listens. For SNS signatures.",
        is_url=True,
    )
    sns_signature_version: str = _setting(
        "2", readers.choice("1", "2"), "SignatureVersion of SNS messages: 1 (SHA-1) or 2 (SHA-256)."
    )
    dns: tuple[tuple[str, int], ...] | str = _setting(
        "system",
        readers.dns,
        "DNS servers: system, off (no verdicts, no delivery by MX), or addresses with ports.",
    )
    dnssec: str = _setting(
        "auto",
        readers.choice("auto", "true", "false"),
        "Whether the DNS servers are believed what they say about DNSSEC; auto: on loopback.",
    )
    dns_budget: timedelta = _setting(
        "5s", readers.positive_duration, "For how long the look-ups of one message may take."
    )
    verdict_processes: int = _setting(
        "2",
        readers.whole(1, 64),
        "Processes in each worker that check SPF, DKIM and DMARC, started when they are needed.",
    )
    rspamd: str = _setting(
        "", readers.url("http"), "URL of rspamd, for rules that scan; empty: none.", is_url=True
    )
    clamd: str = _setting(
        "",
        readers.matching(r"|/.+|[^/:]+:\d+", "HOST:PORT, the path of a socket, or empty"),
        "Address of clamd, for rules that scan; empty: none.",
    )
    http_max_connections: int = _setting(
        "500", readers.whole(1, 100_000), "HTTP connections, in each worker."
    )
    http_max_client_connections: int = _setting(
        "200",
        readers.whole(1, 100_000),
        "HTTP connections of one client (an IPv4 address, an IPv6 /64), in each worker.",
    )
    http_header_timeout: timedelta = _setting(
        "10s",
        readers.positive_duration,
        "In what time an HTTP request's header section must have come.",
    )
    http_body_timeout: timedelta = _setting(
        "30s",
        readers.positive_duration,
        "In what time its body must have come, and how long an answer may wait to be taken.",
    )
    http_idle_timeout: timedelta = _setting(
        "5s",
        readers.positive_duration,
        "For how long an HTTP connection without a request stays open.",
    )
    smtp_max_size: int = _setting(
        str(40 * 2**20), readers.whole(1024, 2**31), "Octets in a message (RFC 1870)."
    )
    smtp_max_recipients: int = _setting(
        "1000", readers.whole(100, 100_000), "Recipients of a message."
    )
    smtp_max_errors: int = _setting(
        "100", readers.whole(1, 10_000), "Errors before a client is cut off."
    )
    smtp_max_connections: int = _setting(
        "1000", readers.whole(1, 100_000), "Connections, in each worker."
    )
    smtp_max_client_connections: int = _setting(
        "100",
        readers.whole(1, 100_000),
        "Connections of one client in each worker: an IPv4 address, or an IPv6 network (/64).",
    )
    smtp_idle_timeout: timedelta = _setting(
        "5m",
        readers.positive_duration,
        "Wait for the next command, after which a client is cut off (RFC 5321 §4.5.3.2).",
    )
    smtp_session_timeout: timedelta = _setting(
        "1h", readers.positive_duration, "For how long one SMTP session may last."
    )
    smtp_min_free: int = _setting(
        str(64 * 2**20),
        readers.whole(0, 2**50),
        "Octets of the disk that mail leaves free, or a twentieth of the disk where that is less.",
    )
    tls_certificate: Path | None = _setting(
        "", readers.optional_file, "PEM certificate chain for STARTTLS; empty generates one."
    )
    tls_key: Path | None = _setting("", readers.optional_file, "PEM private key for STARTTLS.")
    honour_notify_never: bool = _setting(
        "false",
        readers.flag,
        "Whether SendBounce is refused for a recipient whose sender wants no notification.",
    )
    bounce_language: str = _setting(
        "auto",
        readers.matching(r"auto|[a-z]{2,8}(-[a-z0-9]{1,8})*", "auto, or a language such as de"),
        "Language of bounces: one of those there are, or auto, what the original asks for.",
    )
    bounce_texts: Path | None = _setting(
        "", readers.optional_folder, "Folder of files LANGUAGE.toml with texts for bounces."
    )
    return_content: str = _setting(
        "headers",
        readers.choice("headers", "full"),
        "What a bounce returns when the sender did not say (RET): headers, or small mails whole.",
    )
    relay_tls: str = _setting(
        "opportunistic",
        readers.choice("opportunistic", "verify"),
        "STARTTLS at the relay: when offered, or always and with a valid certificate.",
    )
    mx_port: int = _setting("25", readers.whole(1, 65535), "Port of the domains' mail servers.")
    mta_sts: bool = _setting(
        "true", readers.flag, "Whether domains' MTA-STS policies are looked for (RFC 8461)."
    )
    delivery_tls: Mapping[str, str] = _setting(
        "",
        readers.tls_levels,
        "Least TLS of domains, by MX: DOMAIN=encrypted or verified, .DOMAIN for those below, * for "
        "all.",
    )
    tls_ca_file: Path | None = _setting(
        "",
        readers.optional_file,
        "PEM certificates of authorities that deliveries trust beside the system's.",
    )
    delivery_connections: int = _setting(
        "200", readers.whole(1, 10_000), "Connections for delivery, in each worker."
    )
    delivery_host_connections: int = _setting(
        "20", readers.whole(1, 1000), "Of these, to one mail server or relay."
    )
    delivery_domain_connections: int = _setting(
        "10", readers.whole(1, 1000), "Of these, for one domain, by MX."
    )
    delivery_timeout: timedelta = _setting(
        "5m",
        readers.positive_duration,
        "For how long one SMTP command of a delivery may take, unless the RFC says less.",
    )
    source_address: tuple[str, ...] = _setting(
        "",
        readers.addresses,
        "IP addresses that deliveries connect from, IPv4, IPv6; empty: the system's choice.",
    )
    retry_first: timedelta = _setting(
        "60s", readers.positive_duration, "Wait before the first retry."
    )
    retry_longest: timedelta = _setting(
        "4h", readers.positive_duration, "Longest wait between retries."
    )
    give_up_after: timedelta = _setting(
        "5d", readers.positive_duration, "When a bounce is given up."
    )
    lease: timedelta = _setting(
        "30s",
        readers.positive_duration,
        "For how long a worker's claim on a queue row lasts unrenewed.",
    )
    clock_offset: timedelta = _setting(
        "0s",
        readers.signed_duration,
        "Shifts the clock (not that of signatures): 24h, -1h. For tests.",
    )
    log_level: str = _setting(
        "info", readers.choice("debug", "info", "warning", "error"), "What is logged."
    )

    @property
    def allows_private_targets(self) -> bool:
        if self.private_targets == "auto":
            return self.outbound.captures
        return self.private_targets == "true"

    @property
    def dns_servers(self) -> tuple[tuple[str, int], ...] | None:
        """(address, port) of each; None: the system's."""
        return None if isinstance(self.dns, str) else self.dns

    @property
    def verifies_at_once(self) -> bool:
        if self.verification == "auto":
            return self.outbound.captures
        return self.verification == "at_once"

    @property
    def secret_path(self) -> Path:
        return self.secret_file or self.data_dir / "secret.key"

    def endpoint(self, given: str) -> str:
        """What an unmapped bucket, topic or function is: never AWS while nothing is to go out."""
        return given or ("" if self.outbound.captures else "aws")

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data_dir.absolute() / 'sendback.db'}"

    @property
    def database_file(self) -> Path:
        """The file of the SQLite database."""
        return Path(self.database_url.removeprefix("sqlite:///"))
