"""The error of values that cannot be in a DSN."""

from sendback.errors import SendbackError


class DsnError(SendbackError, ValueError):
    """An invalid value in a DSN: `field` names it, `rule` is the reason."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule
