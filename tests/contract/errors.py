"""Errors as boto3 shows them: code and text."""

import pytest
from botocore.exceptions import ClientError


def error(call, **arguments):
    """What the call is refused with."""
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    found = raised.value.response["Error"]
    return found["Code"], found["Message"]


def violations(*texts):
    """The ValidationError that collects these."""
    noun = "error" if len(texts) == 1 else "errors"
    return "ValidationError", f"{len(texts)} validation {noun} detected: " + "; ".join(texts)
