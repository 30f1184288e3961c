"""The values of settings that are more than a text or a number."""

import ipaddress
from dataclasses import dataclass, field


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
