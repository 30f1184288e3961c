"""Which identities cover an address (SES developer guide, "Verified identities")."""

from sendback.mail.address import Address


def covering_names(address: Address) -> tuple[str, ...]:
    """Return the identity names that cover the address, the most specific first.

    These are the address, the address without its `+tag`, its domain, and each parent domain.
    """
    names = [address.key, address.untagged.key]
    domain = address.ascii_domain
    while domain:
        names.append(domain)
        domain = domain.partition(".")[2]
    return tuple(dict.fromkeys(names))
