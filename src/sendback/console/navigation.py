"""The menu."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Area:
    """An entry of the menu; `group` is the heading that it is under."""

    path: str
    name: str
    group: str
    for_operator: bool = False
    is_current: bool = False


_AREAS = (
    Area("/mail", "Mail", ""),
    Area("/bounces", "Bounces", ""),
    Area("/domains", "Domains", "", for_operator=True),
    Area("/rules", "Rules", "Receiving"),
    Area("/identities", "Identities", "Receiving"),
    Area("/overview", "Overview", "Server"),
    Area("/accounts", "Accounts", "Server"),
    Area("/faults", "Faults", "Server", for_operator=True),
    Area("/doctor", "Doctor", "Server", for_operator=True),
    Area("/settings", "Settings", "Server", for_operator=True),
    Area("/audit", "Changes", "Server"),
)


def navigation(path: str) -> tuple[Area, ...]:
    """Return the menu, with the entry of a path marked."""
    return tuple(
        Area(area.path, area.name, area.group, area.for_operator, is_current=True)
        if path == area.path or path.startswith(f"{area.path}/")
        else area
        for area in _AREAS
    )
