"""Contents whose body is a file."""

from pathlib import Path

from sendback.service.rules.content import Content, LocalBody


def in_file(header: bytes, file: Path, size: int) -> Content:
    """The header section with the body in the file, which should have so many octets."""
    return Content(header, LocalBody(file, size), size)
