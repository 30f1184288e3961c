"""Who makes a call, once the signature has been verified."""

from dataclasses import dataclass

from sendback.aws.arn import user_arn


@dataclass(frozen=True, slots=True)
class Caller:
    """An account's user, with the access key that signed."""

    account_id: str
    user_name: str
    access_key: str

    @property
    def arn(self) -> str:
        return user_arn(self.account_id, self.user_name)
