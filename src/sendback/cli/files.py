"""Read the files that are named on the command line; every failure is a usage error."""

import json
import sys
from pathlib import Path
from typing import Any

from sendback.cli.failures import usage_error

MAX_OCTETS = 100 * 2**20  # more than any received message; /dev/zero never ends


def read_octets(file: Path, limit: int = MAX_OCTETS) -> bytes:
    """Return the content of a file, or of standard input for `-`. Raise `BadParameter`."""
    try:
        content = _read_beginning(file, limit + 1)
    except OSError as error:
        raise usage_error(f"{file} cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise usage_error(f"{file} is too large: more than {limit} octets")
    return content


def read_text(file: Path, limit: int = MAX_OCTETS) -> str:
    """Return the content, decoded from UTF-8. Raise `BadParameter`."""
    try:
        return read_octets(file, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise usage_error(f"{file} is not text in UTF-8: {error.reason}") from None


def read_json_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raise `BadParameter`."""
    text = read_text(file)
    try:
        value = json.loads(text)
    except RecursionError:
        raise usage_error(f"{file} is JSON that is nested too deeply") from None
    except ValueError as error:
        raise usage_error(f"{file} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise usage_error(f"{file} is not a JSON object")
    return value


def _read_beginning(file: Path, octets: int) -> bytes:
    if str(file) != "-":
        with file.open("rb") as opened:
            return opened.read(octets)
    if sys.stdin is None:
        raise usage_error("standard input is closed")
    return sys.stdin.buffer.read(octets)
