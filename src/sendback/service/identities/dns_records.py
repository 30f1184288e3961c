"""The DNS records that an identity requires, with their purpose."""

from collections.abc import Sequence

from sendback.mail.address import identity_name
from sendback.service.identities.dkim_keys import DnsRecord, record_of
from sendback.service.identities.dns_checks import domain_record_name
from sendback.store.engine.store import Store
from sendback.store.identities.dkim_keys import FindDkimKeys
from sendback.store.identities.identities import FindIdentities, IdentityKind
from sendback.store.identities.settings import FindSettings


async def wanted_records(
    store: Store, account_id: str, text: str, hostname: str
) -> Sequence[DnsRecord]:
    """Return the records of a domain: token, DKIM keys, MAIL FROM. Empty for an address."""
    name = identity_name(text)
    found = await store.read(FindIdentities(account_id, (name,)))
    records: list[DnsRecord] = []
    if found and found[0].kind is IdentityKind.DOMAIN:
        token = found[0].verification_token
        records.append(DnsRecord(domain_record_name(name), "TXT", token, "verification"))
        keys = await store.read(FindDkimKeys(account_id, (name,)))
        records += [record_of(key) for key in keys]
    settings = (await store.read(FindSettings(account_id, (name,)))).get(name)
    if settings and settings.mail_from_domain:
        domain = settings.mail_from_domain
        records.append(DnsRecord(domain, "MX", f"10 {hostname}", "MAIL FROM"))
        records.append(DnsRecord(domain, "TXT", f"v=spf1 a:{hostname} ~all", "MAIL FROM, SPF"))
    return records
