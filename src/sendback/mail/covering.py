"""Which identities cover an address (SES developer guide, "Verified identities")."""

from sendback.mail.address import Address


def covering_names(address: Address) -> tuple[str, ...]:
    """The identity names that cover it, the closest first.

    The address itself, without its `+tag`, its domain, and each domain above that one.
    """
    names = [address.key, address.untagged.key]
    domain = address.ascii_domain
    while domain:
        names.append(domain)
        domain = domain.partition(".")[2]
    return tuple(dict.fromkeys(names))
