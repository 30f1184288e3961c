"""File descriptors: as many as the limits on connections ask for, and none of SMTP's for HTTP.

A process that has none left accepts no connection on any port, opens no file and no database. The
soft limit is often 1,024 for historic reasons (select); the hard one is what the operator means.
"""

import logging
import resource

from sendback.config.settings import Settings

log = logging.getLogger(__name__)

_NOFILE = resource.RLIMIT_NOFILE
_UNLIMITED = 2**30
# The database, logs, listeners, DNS sockets, pipes of functions, what libraries keep.
_OTHERS = 128
# A message of more than 256 KiB has a file beside its connection.
_OF_AN_SMTP_CONNECTION = 2
_OF_A_PROCESSED_MESSAGE = 2


def raise_limit(settings: Settings) -> None:
    """Raise the soft limit as far as it is needed and possible; warn when that is not enough."""
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
    """Return how many connections HTTP may have so that all else keeps its descriptors.

    With a limit that is too low for all, HTTP has a quarter of the descriptors.
    """
    soft, _ = _limits()
    return min(settings.http_max_connections, max(soft // 4, soft - _for_others(settings)))


def _limits() -> tuple[int, int]:
    """Return the soft and the hard limit; none is a very large one."""
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
