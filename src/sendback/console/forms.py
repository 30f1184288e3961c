"""Forms: reading what a browser sends, within bounds, and what a template shows again.

The fields of a form that calls an operation of SES are named as the members of its request, such
as `BouncedRecipientInfoList.member.1.Recipient`. So a form is a call of the Query API, and an error
that names a member belongs to the field of that name.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from sendback.aws.errors import SesError
from sendback.console.errors import PageError

MAX_FIELDS = 2000
MAX_OCTETS = 2 * 2**20
TOKEN_FIELD = "csrf"  # noqa: S105 - the name of a field

_PATH = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:\.[A-Za-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form in order, and the errors of fields by name.

    The error under the empty name belongs to the whole form.
    """

    pairs: Sequence[tuple[str, str]] = ()
    errors: Mapping[str, str] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        """Return the first value of a field."""
        return next((value for key, value in self.pairs if key == name), default)

    def texts(self, name: str) -> list[str]:
        """Return all values of a field."""
        return [value for key, value in self.pairs if key == name]

    def names(self) -> list[str]:
        """Return the names of the fields."""
        return [name for name, _ in self.pairs]

    def error(self, name: str) -> str:
        """Return the error of a field, or an empty text."""
        return self.errors.get(name, "")

    def filled(self) -> list[tuple[str, str]]:
        """Return the fields that have a value; line ends are LF, as programs write them."""
        return [
            (name, value.replace("\r\n", "\n"))
            for name, value in self.pairs
            if value and name != TOKEN_FIELD
        ]

    def with_errors(self, errors: Mapping[str, str]) -> "Form":
        """Return the form with errors."""
        return Form(self.pairs, dict(errors))

    def with_ses_error(self, error: SesError) -> "Form":
        """Return the form with an error of SES beside the field that it names, or above all."""
        names = sorted(set(self.names()), key=len, reverse=True)
        known = {name.lower(): name for name in names}
        for found in _PATH.findall(error.message):
            name = known.get(found.lower())
            if name is not None:
                return self.with_errors({name: error.message, "": f"{error.code}"})
        quoted = {
            name for name, value in self.filled() if len(value) > 1 and value in error.message
        }
        if len(quoted) == 1:
            return self.with_errors({quoted.pop(): error.message, "": f"{error.code}"})
        return self.with_errors({"": str(error)})


async def read_form(request: Request) -> Form:
    """Return the form in the body of a POST. Raise `PageError`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    octets = await _body(request)
    if kind == "multipart/form-data":
        return await _multipart(request, octets)
    if kind != "application/x-www-form-urlencoded":
        raise PageError(415, "This is not a form", "Use the form of the page.")
    try:
        pairs = parse_qsl(octets.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise PageError(400, "The form cannot be read", "Use the form of the page.") from None
    return Form(
        tuple((name, value.replace("\0", "\N{REPLACEMENT CHARACTER}")) for name, value in pairs)
    )


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_OCTETS:
            text = f"A form has at most {MAX_OCTETS // 2**20} MiB."
            raise PageError(413, "The form is too large", text)
        chunks.append(chunk)
    return b"".join(chunks)


async def _multipart(request: Request, octets: bytes) -> Form:
    """Return a form with files: the content of a file is a text of Latin-1, an octet each."""
    from starlette.datastructures import UploadFile  # noqa: PLC0415 - rarely needed
    from starlette.formparsers import MultiPartException, MultiPartParser  # noqa: PLC0415

    async def stream() -> AsyncGenerator[bytes, None]:
        yield octets

    parser = MultiPartParser(
        request.headers, stream(), max_files=4, max_fields=MAX_FIELDS, max_part_size=MAX_OCTETS
    )
    try:
        data = await parser.parse()
    except (MultiPartException, ValueError, KeyError):
        raise PageError(400, "The form cannot be read", "Use the form of the page.") from None
    pairs = []
    for name, value in data.multi_items():
        if isinstance(value, UploadFile):
            pairs.append((name, (await value.read()).decode("latin-1")))
        else:
            pairs.append((name, value))
    await data.close()
    return Form(tuple(pairs))


__all__ = ["ClientDisconnect", "Form", "read_form"]
