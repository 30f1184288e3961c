"""A call of SES as it is written for the AWS CLI, in Python and in JavaScript. Pure."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

# The AWS CLI reads the file or page that a text of its command line names.
_LOADED = re.compile("(file|fileb|https?)://")


@dataclass(frozen=True, slots=True)
class Snippets:
    """The same call in three languages."""

    cli: str
    boto3: str
    javascript: str


def snippets(action: str, given: Mapping[str, Any], endpoint: str, region: str) -> Snippets:
    """Return the texts of a call with this input, which has the types of botocore's model.

    `endpoint` is the URL of the server. The credentials come from the environment.
    """
    return Snippets(
        _cli(action, given, endpoint, region),
        _boto3(action, given, endpoint, region),
        _javascript(action, given, endpoint, region),
    )


def _cli(action: str, given: Mapping[str, Any], endpoint: str, region: str) -> str:
    lines = [f"aws ses {_kebab(action)}"]
    if any(isinstance(value, str) and _LOADED.match(value) for value in given.values()):
        lines += [f"  --cli-input-json {_quoted(_json(given))}"]
    else:
        lines += [f"  {_option(_kebab(name), value)}" for name, value in given.items()]
    lines += [f"  --endpoint-url {shlex.quote(endpoint)} --region {shlex.quote(region)}"]
    return " \\\n".join(lines)


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    if isinstance(value, str):
        return (
            f"--{name}={_quoted(value)}" if value.startswith("-") else f"--{name} {_quoted(value)}"
        )
    return f"--{name} {_quoted(_json(value))}"


def _json(value: Any) -> str:
    return json.dumps(_plain(value))


def _quoted(text: str) -> str:
    """Return a word of bash; a character that cannot be seen is written as its number."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_in_ansi_quotes(char) for char in text) + "'"


def _in_ansi_quotes(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"


def _boto3(action: str, given: Mapping[str, Any], endpoint: str, region: str) -> str:
    lines = ["import boto3"]
    if _has_date(given):
        lines.insert(0, "import datetime")
    lines += [
        "",
        f'ses = boto3.client("ses", endpoint_url={endpoint!r}, region_name={region!r})',
        f"response = ses.{_snake(action)}(",
        *(f"    {name}={_python(value, 1)}," for name, value in given.items()),
        ")",
    ]
    return "\n".join(lines)


def _python(value: Any, depth: int) -> str:
    indent, end = "    " * (depth + 1), "    " * depth
    if isinstance(value, Mapping):
        items = "".join(f"{indent}{k!r}: {_python(v, depth + 1)},\n" for k, v in value.items())
        return f"{{\n{items}{end}}}"
    if isinstance(value, list):
        items = "".join(f"{indent}{_python(item, depth + 1)},\n" for item in value)
        return f"[\n{items}{end}]" if value else "[]"
    if isinstance(value, datetime):
        return f"datetime.datetime.fromisoformat({value.astimezone(UTC).isoformat()!r})"
    return repr(value)


def _javascript(action: str, given: Mapping[str, Any], endpoint: str, region: str) -> str:
    options = json.dumps({"endpoint": endpoint, "region": region})
    return "\n".join(
        [
            f'import {{ SESClient, {action}Command }} from "@aws-sdk/client-ses";',
            "",
            f"const ses = new SESClient({options});",
            f"const response = await ses.send(new {action}Command({_script(given, 0)}));",
        ]
    )


def _script(value: Any, depth: int) -> str:
    indent, end = "  " * (depth + 1), "  " * depth
    if isinstance(value, Mapping):
        items = "".join(f"{indent}{k}: {_script(v, depth + 1)},\n" for k, v in value.items())
        return f"{{\n{items}{end}}}" if value else "{}"
    if isinstance(value, list):
        items = "".join(f"{indent}{_script(item, depth + 1)},\n" for item in value)
        return f"[\n{items}{end}]" if value else "[]"
    if isinstance(value, datetime):
        return f"new Date({json.dumps(value.astimezone(UTC).isoformat())})"
    return json.dumps(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _has_date(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_date(member) for member in value.values())
    if isinstance(value, list):
        return any(_has_date(item) for item in value)
    return isinstance(value, datetime)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _kebab(name: str) -> str:
    return _snake(name).replace("_", "-")
