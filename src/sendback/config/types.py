"""The values of settings that are more than a text or a number."""

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on; port 0 picks a free one."""

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
    """A relay for all outbound mail; `implicit_tls`: TLS from the first octet (RFC 8314)."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
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
    """Where mail goes: only stored (`capture`), to the first relay that accepts it, or by MX."""

    smarthosts: tuple[Smarthost, ...] = ()
    by_mx: bool = False

    @property
    def captures(self) -> bool:
        return not (self.smarthosts or self.by_mx)

    def __str__(self) -> str:
        return ",".join(map(str, self.smarthosts)) or ("mx" if self.by_mx else "capture")


@dataclass(frozen=True, slots=True)
class ContentAddress:
    """Where large bodies are stored: `database`, `directory`, or an object store.

    `kind` is empty for the default, or the scheme of the object store's URL; then `bucket`,
    `prefix` and `options` are of that store, and `secrets` are its credentials in the URL.
    """

    kind: str
    bucket: str = ""
    prefix: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_object_store(self) -> bool:
        return bool(self.bucket)

    @property
    def public_url(self) -> str:
        """The URL without credentials, in one spelling: other nodes read it in the database."""
        path = f"/{self.prefix}" if self.prefix else ""
        query = f"?{urlencode(sorted(self.options.items()))}" if self.options else ""
        return f"{self.kind}://{self.bucket}{path}{query}"

    @property
    def key(self) -> str:
        """The short name of an object store in the rows of its contents."""
        return hashlib.sha256(self.public_url.encode()).hexdigest()[:8]

    def __str__(self) -> str:
        return self.public_url if self.is_object_store else self.kind
