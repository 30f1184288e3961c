"""What `sendback.dsn` raises."""

from sendback.errors import SendbackError


class DsnError(SendbackError, ValueError):
    """A field's value cannot stand in a DSN: `field` names it, `rule` says why."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule
