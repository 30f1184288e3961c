"""Amazon resource names of SES identities and IAM principals."""

from dataclasses import dataclass

from sendback.mail.printable import printable


@dataclass(frozen=True, slots=True)
class IdentityArn:
    """`arn:aws:ses:us-east-1:123456789012:identity/example.com`."""

    region: str
    account_id: str
    identity: str

    def __str__(self) -> str:
        return f"arn:aws:ses:{self.region}:{self.account_id}:identity/{self.identity}"


def parse_identity_arn(text: str) -> IdentityArn:
    """Return the parsed ARN of an SES identity. Raise `ValueError`."""
    pieces = text.split(":", 5)
    kind, _, identity = pieces[-1].partition("/")
    if len(pieces) != 6 or pieces[:3] != ["arn", "aws", "ses"] or kind != "identity":  # noqa: PLR2004
        form = "arn:aws:ses:REGION:ACCOUNT:identity/NAME"
        raise ValueError(f"'{printable(text)}' is not of the form {form}")
    if not identity or not pieces[3] or not pieces[4].isdigit():
        raise ValueError(f"'{printable(text)}' lacks its region, account or identity")
    return IdentityArn(pieces[3], pieces[4], identity)


ROOT_USER = "root"  # an account's root user, which no policy restricts


def root_arn(account_id: str) -> str:
    """Return the ARN of an account: `arn:aws:iam::123456789012:root`."""
    return f"arn:aws:iam::{account_id}:root"


def user_arn(account_id: str, user: str) -> str:
    """Return the ARN of a user, such as `arn:aws:iam::123456789012:user/ann`."""
    return f"arn:aws:iam::{account_id}:user/{user}"
