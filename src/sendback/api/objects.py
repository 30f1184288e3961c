"""Which requests are for the small S3: those whose signature names it, whatever their path."""

from collections.abc import Iterable

from sendback.aws.sigv4 import claimed_service

SERVICE = "s3"


def is_for_objects(fields: Iterable[tuple[bytes, bytes]], query: bytes) -> bool:
    """Whether the scope of the signature names S3; the signature is not verified here."""
    authorization = next((value for name, value in fields if name == b"authorization"), b"")
    if not authorization and b"aws4_request" not in query:
        return False
    return claimed_service(authorization, query) == SERVICE
