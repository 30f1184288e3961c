"""Faults of a server in the test's process."""

from typing import Any

from tests.partners.server import Server


def fail(server: Server, at: str, **members: Any) -> str:
    """Adds a rule, with `from_` for the member `from`; answers its name."""
    named = {name.rstrip("_"): value for name, value in members.items()}
    rule = server.app.faults.from_json({"at": at, **named})
    return str(server.run(server.app.faults.add(rule)).rule.name)


def counters(server: Server) -> dict[str, tuple[int, int]]:
    """By the names of the rules: how many events they matched, and how many failed."""
    stored = server.run(server.app.faults.list())
    return {entry.rule.name: (entry.matched, entry.injected) for entry in stored}
