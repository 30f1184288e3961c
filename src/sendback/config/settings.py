"""The table of settings: for each its default, the reader that checks its text, and what it is.

`sendback config show` and the documentation print this table.
"""

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sendback.config import readers
from sendback.config.types import ContentAddress, Listen, Outbound
from sendback.errors import InvalidInputError

_SHOWN = 200


class SettingError(InvalidInputError):
    """An invalid setting: its name, value and origin, and what is allowed.

    `value` is without passwords.
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
    """Return the field of a setting.

    A hidden value is never shown; a URL is shown without user, password and query.
    """
    # A default is read like any other text, so it has the same type.
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
    """All settings, with their types."""

    data_dir: Path = _setting(
        "sendback-data",
        readers.path,
        "Directory of the database, large messages, keys and certificates.",
    )
    http_listen: Listen = _setting(
        "127.0.0.1:4579", readers.listen, "Address of the API and of /healthz."
    )
    smtp_listen: Listen = _setting("127.0.0.1:2525", readers.listen, "Address of the SMTP server.")
    outbound: Outbound = _setting(
        "capture",
        readers.outbound,
        "Where outbound mail goes: only stored (capture), to the MX of each domain (mx), or to "
        "relays (smtp://HOST:PORT).",
        is_url=True,
    )
    database: str = _setting(
        "", readers.database, "Database URL; empty is SQLite in the data directory.", is_url=True
    )
    listen_database: str = _setting(
        "",
        readers.database,
        "Database URL past a connection pooler, for LISTEN (PostgreSQL); empty is the same URL.",
        is_url=True,
    )
    content_store: ContentAddress = _setting(
        "",
        readers.content_store,
        "Where bodies over 256 KiB are stored: database, directory (in the data directory), or an "
        "object store (s3://, gs://, az://); empty: directory with SQLite, else database.",
        is_url=True,
    )
    workers: int = _setting(
        "1", readers.whole(1, 256), "Worker processes, which share the listening ports."
    )
    worker_timeout: timedelta = _setting(
        "30s",
        readers.duration,
        "Time after which a worker that hangs is replaced; a single process ends. 0s: never.",
    )
    share_data_dir: bool = _setting(
        "false",
        readers.flag,
        "Whether several servers share the data directory; set it to true for all of them.",
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
        "Name of this server in the banner, HELO, Received, Reporting-MTA and Message-ID.",
    )
    send_bounce_rate: float = _setting(
        "1",
        readers.rate,
        "Rate limit of each account: SendBounce calls per second; 0 is unlimited.",
    )
    send_quota: float = _setting(
        "50000",
        readers.positive_number,
        "Max24HourSend in the answer of GetSendQuota; reported, not enforced.",
    )
    send_rate: float = _setting(
        "14",
        readers.positive_number,
        "MaxSendRate in the answer of GetSendQuota, a second; reported, not enforced.",
    )
    inspection_token: str = _setting(
        "",
        readers.matching(r"|[!-~]{16,200}", "16 to 200 printable characters without blanks"),
        "Token of the inspection API; empty: the API needs none on loopback, and is off elsewhere.",
        hidden=True,
    )
    console: bool = _setting(
        "true", readers.flag, "Whether the web console is served at /console/."
    )
    console_hosts: tuple[str, ...] = _setting(
        "",
        readers.host_names,
        "Further host names by which browsers may open the console, separated by commas; it is "
        "always open by the host of http_listen, by hostname and by the host of public_url.",
    )
    console_session: timedelta = _setting(
        "7d", readers.positive_duration, "Time after which users sign in to the console again."
    )
    console_idle: timedelta = _setting(
        "12h",
        readers.positive_duration,
        "Time without a request after which users sign in to the console again.",
    )
    development_key: bool = _setting(
        "true", readers.flag, "Whether the key pair test/test is accepted. Only on loopback."
    )
    secret: str = _setting(
        "",
        readers.matching(r"|[0-9A-Fa-f]{64}", "64 hexadecimal digits (openssl rand -hex 32)"),
        "Secret that encrypts the stored keys; empty: the content of secret_file.",
        hidden=True,
    )
    secret_file: Path | None = _setting(
        "",
        readers.optional_path,
        "File with this secret, created if missing; empty: secret.key in the data directory.",
    )
    verification: str = _setting(
        "auto",
        readers.choice("auto", "at_once", "proved"),
        "How identities are verified: by mail and DNS (proved), or without a check (at_once); "
        "auto: at_once if outbound is capture.",
    )
    verification_sender: str = _setting(
        "",
        readers.mailbox,
        "From address of verification mails; empty: no-reply@ and the hostname.",
    )
    verification_link_lasts: timedelta = _setting(
        "24h", readers.positive_duration, "Lifetime of the link in a verification mail."
    )
    verification_account_limit: int = _setting(
        "50",
        readers.whole(0, 1_000_000),
        "Maximum number of verification mails of an account in an hour; 0 is unlimited.",
    )
    verification_address_limit: int = _setting(
        "5",
        readers.whole(0, 1_000_000),
        "Maximum number of verification mails to an address, in all its spellings, in a day; 0 is "
        "unlimited.",
    )
    verification_limit: int = _setting(
        "500",
        readers.whole(0, 1_000_000),
        "Maximum number of verification mails of all accounts in an hour; 0 is unlimited.",
    )
    dkim_ed25519: bool = _setting(
        "false", readers.flag, "Whether domains get an Ed25519 DKIM key in addition to the RSA key."
    )
    bounce_window: timedelta = _setting(
        "24h", readers.positive_duration, "Time after receipt in which a message can be bounced."
    )
    retention: timedelta = _setting(
        "24h", readers.positive_duration, "Time for which received messages are stored."
    )
    history: timedelta = _setting(
        "14d",
        readers.positive_duration,
        "Time for which finished bounces and the records of received messages are stored.",
    )
    receive_without_rules: bool = _setting(
        "true",
        readers.flag,
        "Whether mail for verified identities is accepted while no rule set is active. SES: false.",
    )
    processing_tasks: int = _setting(
        "50",
        readers.whole(1, 10_000),
        "Messages whose rules each worker processes concurrently.",
    )
    action_retry_first: timedelta = _setting(
        "20s",
        readers.positive_duration,
        "Delay before the first retry of a failed action of a rule.",
    )
    action_retry_longest: timedelta = _setting(
        "20m", readers.positive_duration, "Longest delay between retries of an action."
    )
    action_give_up_after: timedelta = _setting(
        "4h",
        readers.positive_duration,
        "Time after which an action is no longer retried and is recorded as expired.",
    )
    function_failure: str = _setting(
        "continue",
        readers.choice("continue", "stop"),
        "Result of a RequestResponse function that cannot be called: continue (as SES), or stop, "
        "which ends the rule set.",
    )
    check_targets: bool = _setting(
        "true",
        readers.flag,
        "Whether the buckets, topics and functions of a rule must exist when it is written.",
    )
    s3_endpoint: str = _setting(
        "",
        readers.endpoint,
        "Endpoint for unmapped buckets: aws, a URL, or empty: aws unless outbound is capture.",
        is_url=True,
    )
    sns_endpoint: str = _setting(
        "", readers.endpoint, "Endpoint for unmapped topics, as s3_endpoint.", is_url=True
    )
    lambda_endpoint: str = _setting(
        "", readers.endpoint, "Endpoint for unmapped functions, as s3_endpoint.", is_url=True
    )
    function_environment: tuple[str, ...] = _setting(
        "",
        readers.variable_names,
        "Environment variables of the server that local functions inherit, separated by commas.",
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
        "Whether webhooks and MX may be on loopback and private addresses; auto: if outbound is "
        "capture.",
    )
    public_url: str = _setting(
        "",
        readers.url("http", "https"),
        "Public URL of this server, for verification links and SNS signatures; empty: the address "
        "of http_listen.",
        is_url=True,
    )
    sns_signature_version: str = _setting(
        "2", readers.choice("1", "2"), "SignatureVersion of SNS messages: 1 (SHA-1) or 2 (SHA-256)."
    )
    dns: tuple[tuple[str, int], ...] | str = _setting(
        "system",
        readers.dns,
        "DNS servers: system, off (no verdicts, no delivery by MX), or IP addresses with ports.",
    )
    dnssec: str = _setting(
        "auto",
        readers.choice("auto", "true", "false"),
        "Whether the DNS servers are trusted to validate DNSSEC; auto: if all are on loopback.",
    )
    dns_budget: timedelta = _setting(
        "5s", readers.positive_duration, "Time limit for all DNS lookups of one message."
    )
    verdict_processes: int = _setting(
        "2",
        readers.whole(1, 64),
        "Processes of each worker that check SPF, DKIM and DMARC, started on demand.",
    )
    test_verdicts: bool = _setting(
        "false",
        readers.flag,
        "Whether a client may give the verdicts on its message (XSENDBACK-VERDICTS), for tests. "
        "Not with delivery by MX.",
    )
    rspamd: str = _setting(
        "",
        readers.url("http"),
        "URL of rspamd, for rules with ScanEnabled; empty: none.",
        is_url=True,
    )
    clamd: str = _setting(
        "",
        readers.matching(r"|/.+|[^/:]+:\d+", "HOST:PORT, the path of a socket, or empty"),
        "Address of clamd, for rules with ScanEnabled; empty: none.",
    )
    http_max_connections: int = _setting(
        "500", readers.whole(1, 100_000), "Maximum number of HTTP connections of each worker."
    )
    http_max_client_connections: int = _setting(
        "200",
        readers.whole(1, 100_000),
        "Maximum number of HTTP connections of one client (an IPv4 address or an IPv6 /64) to each "
        "worker.",
    )
    http_header_timeout: timedelta = _setting(
        "10s",
        readers.positive_duration,
        "Timeout for the header section of an HTTP request.",
    )
    http_body_timeout: timedelta = _setting(
        "30s",
        readers.positive_duration,
        "Timeout for the body of an HTTP request, and for a client that reads no response.",
    )
    http_idle_timeout: timedelta = _setting(
        "5s",
        readers.positive_duration,
        "Timeout of an idle HTTP connection.",
    )
    smtp_max_size: int = _setting(
        str(40 * 2**20),
        readers.whole(1024, 2**31),
        "Maximum size of a message in octets (RFC 1870).",
    )
    smtp_max_recipients: int = _setting(
        "1000", readers.whole(100, 100_000), "Maximum number of recipients of a message."
    )
    smtp_max_errors: int = _setting(
        "100", readers.whole(1, 10_000), "Number of errors after which a client is disconnected."
    )
    smtp_max_connections: int = _setting(
        "1000", readers.whole(1, 100_000), "Maximum number of SMTP connections of each worker."
    )
    smtp_max_client_connections: int = _setting(
        "100",
        readers.whole(1, 100_000),
        "Maximum number of SMTP connections of one client (an IPv4 address or an IPv6 /64) to each "
        "worker.",
    )
    smtp_idle_timeout: timedelta = _setting(
        "5m",
        readers.positive_duration,
        "Timeout for the next SMTP command of a client (RFC 5321 §4.5.3.2).",
    )
    smtp_session_timeout: timedelta = _setting(
        "1h", readers.positive_duration, "Maximum duration of an SMTP session."
    )
    smtp_min_free: int = _setting(
        str(64 * 2**20),
        readers.whole(0, 2**50),
        "Free disk space in octets, or a twentieth of the disk if that is less, below which mail "
        "is refused.",
    )
    tls_certificate: Path | None = _setting(
        "",
        readers.optional_file,
        "PEM certificate chain for STARTTLS; empty: a self-signed one is generated.",
    )
    tls_key: Path | None = _setting("", readers.optional_file, "PEM private key for STARTTLS.")
    honour_notify_never: bool = _setting(
        "false",
        readers.flag,
        "Whether SendBounce is refused for recipients with NOTIFY=NEVER (RFC 3461).",
    )
    bounce_language: str = _setting(
        "auto",
        readers.matching(r"auto|[a-z]{2,8}(-[a-z0-9]{1,8})*", "auto, or a language such as de"),
        "Language of bounces; auto: the language that the original message asks for, if available.",
    )
    bounce_texts: Path | None = _setting(
        "", readers.optional_folder, "Directory with files LANGUAGE.toml, the texts of bounces."
    )
    return_content: str = _setting(
        "headers",
        readers.choice("headers", "full"),
        "Part of the original in a bounce, if the sender did not specify RET: headers, or full for "
        "small messages.",
    )
    relay_tls: str = _setting(
        "opportunistic",
        readers.choice("opportunistic", "verify"),
        "TLS to relays: if offered (opportunistic), or required with a valid certificate (verify).",
    )
    mx_port: int = _setting(
        "25", readers.whole(1, 65535), "Port of mail servers, for delivery by MX."
    )
    mta_sts: bool = _setting(
        "true", readers.flag, "Whether MTA-STS policies of domains are used (RFC 8461)."
    )
    delivery_tls: Mapping[str, str] = _setting(
        "",
        readers.tls_levels,
        "Minimum TLS level for delivery by MX: DOMAIN=encrypted or verified, .DOMAIN for its "
        "subdomains, * for all other domains.",
    )
    tls_ca_file: Path | None = _setting(
        "",
        readers.optional_file,
        "PEM certificates of authorities that deliveries trust in addition to the system's.",
    )
    delivery_connections: int = _setting(
        "200",
        readers.whole(1, 10_000),
        "Maximum number of connections for delivery of each worker.",
    )
    delivery_host_connections: int = _setting(
        "20", readers.whole(1, 1000), "Maximum number of these to one mail server or relay."
    )
    delivery_domain_connections: int = _setting(
        "10", readers.whole(1, 1000), "Maximum number of these for one domain, for delivery by MX."
    )
    delivery_timeout: timedelta = _setting(
        "5m",
        readers.positive_duration,
        "Timeout of an SMTP command of a delivery; where RFC 5321 allows less, that.",
    )
    source_address: tuple[str, ...] = _setting(
        "",
        readers.addresses,
        "Source addresses of deliveries, one IPv4 and one IPv6; empty: chosen by the system.",
    )
    retry_first: timedelta = _setting(
        "60s", readers.positive_duration, "Delay before the first retry of a delivery."
    )
    retry_longest: timedelta = _setting(
        "4h", readers.positive_duration, "Longest delay between retries of a delivery."
    )
    give_up_after: timedelta = _setting(
        "5d",
        readers.positive_duration,
        "Time after which a delivery is no longer retried and fails.",
    )
    lease: timedelta = _setting(
        "30s",
        readers.positive_duration,
        "Duration of a lease on a queue row, unless the worker renews it.",
    )
    clock_offset: timedelta = _setting(
        "0s",
        readers.signed_duration,
        "Offset of the clock, but not for request signatures: 24h, -1h. For tests.",
    )
    log_level: str = _setting(
        "info", readers.choice("debug", "info", "warning", "error"), "Lowest level that is logged."
    )

    @property
    def allows_private_targets(self) -> bool:
        if self.private_targets == "auto":
            return self.outbound.captures
        return self.private_targets == "true"

    @property
    def dns_servers(self) -> tuple[tuple[str, int], ...] | None:
        """(address, port) of each; None: the system's servers."""
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
        """Return the endpoint of unmapped targets: by default AWS, none while outbound captures."""
        return given or ("" if self.outbound.captures else "aws")

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data_dir.absolute() / 'sendback.db'}"

    @property
    def database_file(self) -> Path | None:
        """The file of the SQLite database; None for a database on a server."""
        if not self.database_url.startswith("sqlite:"):
            return None
        return Path(self.database_url.removeprefix("sqlite:///"))

    @property
    def content_address(self) -> ContentAddress:
        """Where large bodies are stored, with the default of this database."""
        if self.content_store.kind:
            return self.content_store
        return ContentAddress("directory" if self.database_file else "database")
