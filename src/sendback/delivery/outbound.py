"""The delivery worker, its transport and its router, built from the settings."""

import asyncio
import ssl
from datetime import timedelta

from sendback.clock import Clock
from sendback.config.settings import SettingError, Settings
from sendback.delivery.mta_sts import MAX_POLICY_OCTETS, StsPolicies
from sendback.delivery.mx import MxRouter, MxSettings
from sendback.delivery.routes import RelayRouter, Router
from sendback.delivery.sessions import SessionSettings
from sendback.delivery.smtp_transport import ConnectionLimits, Sign, SmtpTransport
from sendback.delivery.tls_policies import trusting
from sendback.delivery.transports import Capture, Transport
from sendback.delivery.worker import DeliveryWorker, RetryPolicy
from sendback.net.async_resolver import AsyncResolver
from sendback.net.connector import Connector
from sendback.service.events.bus import EventBus
from sendback.service.faults.faults import Faults
from sendback.service.queues.retry import Backoff
from sendback.smtp_client.connection import Timeouts
from sendback.store.engine.store import Store

# For how long a failed host is not tried while there is another.
_DEAD_FOR = timedelta(seconds=30)
# A domain that failed is probed at least this often.
_LONGEST_BLOCK = timedelta(hours=1)


def delivery_worker(
    settings: Settings,
    store: Store,
    clock: Clock,
    sign: Sign,
    faults: Faults,
    *,
    owner: str,
    suspects: asyncio.Lock,
    events: EventBus,
) -> DeliveryWorker:
    """Return the worker that delivers the outbox. Raises `SettingError`."""
    captures = settings.outbound.captures
    transport = Capture(faults) if captures else _transport(settings, store, clock, sign)
    longest_block = min(settings.retry_longest, _LONGEST_BLOCK)
    return DeliveryWorker(
        store,
        clock,
        transport,
        owner=owner,
        retry_policy=RetryPolicy(
            message=Backoff(settings.retry_first, settings.retry_longest),
            domain=Backoff(settings.retry_first, longest_block),
        ),
        lease=settings.lease,
        capacity=_capacity(settings),
        suspects=suspects,
        events=events,
    )


def mx_router(settings: Settings, store: Store, clock: Clock) -> MxRouter:
    """Return the router that finds mail servers in DNS. Raises `SettingError`."""
    resolver = async_resolver(settings, settings.dns_budget.total_seconds())
    mx_settings = MxSettings(
        port=settings.mx_port,
        own_names=frozenset({settings.hostname.lower()}),
        allow_private=settings.allows_private_targets,
        tls=settings.delivery_tls,
    )
    policies = None
    if settings.mta_sts:
        connector = Connector(
            allow_private=settings.allows_private_targets,
            trust=trust_of(settings),  # of its own: HTTP puts its ALPN into it
            lookup=resolver.addresses,
            max_response=MAX_POLICY_OCTETS,
        )
        policies = StsPolicies(resolver, store, clock, connector)
    return MxRouter(resolver, policies, mx_settings, trust_of(settings))


def relay_router(settings: Settings) -> RelayRouter:
    """Return the router to the relays of the settings. Raises `SettingError`."""
    verify = settings.relay_tls == "verify"
    return RelayRouter(settings.outbound.smarthosts, verify=verify, trust=trust_of(settings))


def session_settings(settings: Settings, seconds: float) -> SessionSettings:
    """Return the settings of sessions; `seconds` bounds the timeouts of RFC 5321."""
    return SessionSettings(settings.hostname, Timeouts(seconds), settings.source_address)


def async_resolver(settings: Settings, seconds: float) -> AsyncResolver:
    """Return a resolver for the DNS servers of the settings; `seconds` is a query's timeout."""
    trusted = None if settings.dnssec == "auto" else settings.dnssec == "true"
    return AsyncResolver(settings.dns_servers, trusted=trusted, seconds=seconds)


def trust_of(settings: Settings) -> ssl.SSLContext:
    """Return the context with the authorities for peers' certificates. Raises `SettingError`."""
    try:
        return trusting(settings.tls_ca_file)
    except (ssl.SSLError, OSError) as error:
        value, allowed = str(settings.tls_ca_file), f"PEM certificates: {error}"
        raise SettingError("tls_ca_file", value, "the settings", allowed) from None


def _transport(settings: Settings, store: Store, clock: Clock, sign: Sign) -> Transport:
    outbound = settings.outbound
    router: Router = mx_router(settings, store, clock) if outbound.by_mx else relay_router(settings)
    limits = ConnectionLimits(
        connections=settings.delivery_connections,
        per_host=settings.delivery_host_connections,
        per_domain=settings.delivery_domain_connections if outbound.by_mx else None,
        dead_for=min(_DEAD_FOR, settings.retry_first),
    )
    session = session_settings(settings, settings.delivery_timeout.total_seconds())
    return SmtpTransport(router, session, limits, clock, sign)


def _capacity(settings: Settings) -> int:
    """Return how many messages to lease, so that no connection waits for the store."""
    if settings.outbound.by_mx:
        return settings.delivery_connections * 2
    return min(settings.delivery_connections, settings.delivery_host_connections) * 4
