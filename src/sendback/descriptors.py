"""The limit on file descriptors: raised as the limits on connections require, reserved for SMTP.

A process without free descriptors accepts no connections and opens no file or database. The soft
limit is often 1,024 for historic reasons (select); the hard limit is the operator's decision.
"""

import logging
import resource

from sendback.config.settings import Settings

log = logging.getLogger(__name__)

_NOFILE = resource.RLIMIT_NOFILE
_UNLIMITED = 2**30
# The database, logs, listeners, DNS sockets, pipes of functions, descriptors of libraries.
_OTHERS = 128
# The connection, and a file for a message of more than 256 KiB.
_OF_AN_SMTP_CONNECTION = 2
_OF_A_PROCESSED_MESSAGE = 2


def raise_limit(settings: Settings) -> None:
    """Raise the soft limit as far as needed and possible; warn when that is not enough."""
    soft, hard = _limits()
    wanted = _for_others(settings) + settings.http_max_connections
    if soft < wanted:
        soft = min(hard, wanted)
        resource.setrlimit(_NOFILE, (soft, resource.getrlimit(_NOFILE)[1]))
    if soft < wanted:
        log.warning(
            "descriptors limit=%d wanted=%d: HTTP takes at most %d connections; raise the limit "
            "(ulimit -n, LimitNOFILE) or lower the limits on connections",
            soft,
            wanted,
            http_connections(settings),
        )


def http_connections(settings: Settings) -> int:
    """Return the maximum number of HTTP connections that leaves enough descriptors for the rest.

    If the limit is too low for that, HTTP gets a quarter of the descriptors.
    """
    soft, _ = _limits()
    return min(settings.http_max_connections, max(soft // 4, soft - _for_others(settings)))


def _limits() -> tuple[int, int]:
    """Return the soft and the hard limit; unlimited is a very large number."""
    soft, hard = resource.getrlimit(_NOFILE)
    return _number(soft), _number(hard)


def _number(limit: int) -> int:
    return _UNLIMITED if limit == resource.RLIM_INFINITY else limit


def _for_others(settings: Settings) -> int:
    return (
        _OTHERS
        + settings.smtp_max_connections * _OF_AN_SMTP_CONNECTION
        + settings.delivery_connections
        + settings.processing_tasks * _OF_A_PROCESSED_MESSAGE
    )
