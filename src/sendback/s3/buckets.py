"""The buckets of a caller's account: those that are mapped to a directory."""

from pathlib import Path

from sendback.redaction import shown_url
from sendback.s3.directory import Directory, EtagCache
from sendback.s3.errors import no_such_bucket, not_implemented
from sendback.service.rules.ports import UnknownTargetError
from sendback.service.rules.targets import BUCKET, DIRECTORY, Targets


class Buckets:
    """Finds buckets. The mapping is read for each request: a change takes effect at once."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._etags = EtagCache()

    async def find(self, account_id: str, name: str) -> Directory:
        """Return the account's bucket. Raise `S3Error`, `StoreUnavailableError`.

        NotImplemented, with the place, for a bucket that is elsewhere.
        """
        try:
            target = await self._targets.find(account_id, BUCKET, name)
        except UnknownTargetError:
            raise no_such_bucket(name) from None
        if target.startswith(DIRECTORY):
            return Directory(Path(target.removeprefix(DIRECTORY)), self._etags)
        place = "AWS" if target == "aws" else shown_url(target.removeprefix("endpoint:"))
        raise not_implemented(f"buckets elsewhere; {name} is at {place}")
