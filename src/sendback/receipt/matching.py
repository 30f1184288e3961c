"""Find the rules that apply to a recipient.

Theory of operation. A rule set is compiled once into an index from condition to rule numbers:
`user@example.com`, `example.com`, `.example.com`, and the rules without conditions. The
number of conditions that can match a recipient depends on the labels of its domain, not on the
number of rules. Disabled rules are not in the index.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sendback.mail.address import Address, parse_address, parse_domain
from sendback.receipt.model import Rules, TlsPolicy


@dataclass(frozen=True, slots=True)
class CompiledRules:
    """A rule set's rules with their index; rule numbers are positions in `rules`."""

    rules: Rules
    index: dict[str, tuple[int, ...]]
    for_all: tuple[int, ...]

    def matching(self, recipient: Address) -> list[int]:
        """Return the numbers of the enabled rules that match the recipient, in order."""
        numbers = set(self.for_all)
        for condition in conditions_of(recipient):
            numbers.update(self.index.get(condition, ()))
        return sorted(numbers)

    def requires_tls(self, recipient: Address) -> bool:
        """Whether a rule that matches the recipient requires TLS."""
        return any(
            self.rules[number].tls_policy is TlsPolicy.REQUIRE
            for number in self.matching(recipient)
        )


def compile_rules(rules: Rules) -> CompiledRules:
    """Return the index of validated rules."""
    index: dict[str, list[int]] = {}
    for_all: list[int] = []
    for number, rule in enumerate(rules):
        if not rule.enabled:
            continue
        if not rule.recipients:
            for_all.append(number)
        for condition in {_canonical(text) for text in rule.recipients}:
            index.setdefault(condition, []).append(number)
    return CompiledRules(rules, {key: tuple(value) for key, value in index.items()}, tuple(for_all))


def conditions_of(recipient: Address) -> Iterator[str]:
    """Yield every condition that matches the recipient, in canonical spelling.

    The address, the address without its `+tag`, its domain, and `.parent` for each domain above:
    `.example.com` means the subdomains of example.com, not itself.
    """
    yield recipient.key
    if recipient.untagged is not recipient:
        yield recipient.untagged.key
    domain = recipient.ascii_domain
    yield domain
    _, _, parent = domain.partition(".")
    while parent:
        yield "." + parent
        _, _, parent = parent.partition(".")


def _canonical(condition: str) -> str:
    if "@" in condition:
        return parse_address(condition, any_dots=True).key
    dot = "." if condition.startswith(".") else ""
    return dot + parse_domain(condition.removeprefix("."))
