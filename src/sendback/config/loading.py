"""Loading of the settings: defaults, `sendback.toml`, the environment (`SENDBACK_…`), then flags.

Each source overrides the ones before it. The source of every value is kept: `sendback config show`
prints it. Commands that work on the store of a server that runs take its settings before the other
sources, instead of the defaults.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sendback.config.settings import SettingError, Settings
from sendback.config.types import ContentAddress, Outbound
from sendback.redaction import shown_url, shown_wrong

ENVIRONMENT_PREFIX = "SENDBACK_"
DEFAULT_FILE = Path("sendback.toml")
HIDDEN = "(hidden)"
_MAX_FILE_OCTETS = 2**20


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings, the text of each without secrets, and its origin.

    `public_texts` are the texts of those that hold no secret. `unknown` are the variables of the
    environment that look like settings and are none.
    """

    settings: Settings
    texts: Mapping[str, str]
    origins: Mapping[str, str]
    public_texts: Mapping[str, str]
    unknown: tuple[str, ...] = ()


def load(
    flags: Mapping[str, str | None] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    server: Mapping[str, str] | None = None,
    *,
    reads_file: bool = True,
) -> LoadedSettings:
    """Read all sources and check every setting. Raise `SettingError`.

    `server` are texts of settings of the server that runs, if any. Without `reads_file`, no file
    is read, not even `sendback.toml`.
    """
    given = os.environ if environ is None else environ
    texts: dict[str, str] = {}
    origins: dict[str, str] = {}
    table = {entry.name: entry for entry in fields(Settings)}
    sources = (
        ("default", {name: entry.metadata["default"] for name, entry in table.items()}),
        ("running server", {k: v for k, v in (server or {}).items() if k in table}),
        *(_file_source(file, table.keys()) if reads_file else ()),
        ("environment", _from_environment(given, table)),
        ("flag", {name: text for name, text in (flags or {}).items() if text is not None}),
    )
    for origin, values in sources:
        for name, text in values.items():
            texts[name], origins[name] = text, origin
    read: dict[str, Any] = {}
    for name, entry in table.items():
        try:
            if "\0" in texts[name]:
                raise ValueError("a text without NUL")
            read[name] = entry.metadata["read"](texts[name])
        except ValueError as error:
            shown = _shown_wrong(texts[name], entry.metadata)
            raise SettingError(name, shown, origins[name], str(error)) from None
    settings = Settings(**read)
    _check_together(settings, origins)
    shown_texts = {
        name: _shown(read[name], texts[name], entry.metadata) for name, entry in table.items()
    }
    public = {
        name: texts[name]
        for name, shown in shown_texts.items()
        if not table[name].metadata["hidden"] and shown == texts[name]
    }
    return LoadedSettings(settings, shown_texts, origins, public, _unknown(given, table))


def _shown(value: object, text: str, metadata: Mapping[str, Any]) -> str:
    """Return the text of a setting, without secrets."""
    if metadata["hidden"]:
        return HIDDEN if text else ""
    if isinstance(value, Outbound | ContentAddress):
        return str(value)
    return shown_url(text) if metadata["is_url"] and ":" in text else text


def _shown_wrong(text: str, metadata: Mapping[str, Any]) -> str:
    if metadata["hidden"]:
        return HIDDEN
    return shown_wrong(text) if metadata["is_url"] else text


def _from_environment(environ: Mapping[str, str], table: Mapping[str, Any]) -> dict[str, str]:
    names = {ENVIRONMENT_PREFIX + name.upper(): name for name in table}
    return {name: environ[variable] for variable, name in names.items() if variable in environ}


# Kubernetes sets these for each service, such as one that is called "sendback".
_OF_KUBERNETES = re.compile(r"SERVICE_(?:HOST|PORT.*)|PORT(?:_\d+_(?:TCP|UDP).*)?")


def _unknown(environ: Mapping[str, str], table: Mapping[str, Any]) -> tuple[str, ...]:
    known = {ENVIRONMENT_PREFIX + name.upper() for name in table}
    found = (name for name in environ if name.startswith(ENVIRONMENT_PREFIX))
    return tuple(
        sorted(
            name
            for name in found
            if name not in known
            and not _OF_KUBERNETES.fullmatch(name.removeprefix(ENVIRONMENT_PREFIX))
        )
    )


def describe_unknown(name: str) -> str:
    """Return the text about a variable of the environment that is no setting."""
    known = [ENVIRONMENT_PREFIX + entry.name.upper() for entry in fields(Settings)]
    close = difflib.get_close_matches(name, known, 1, 0.85)
    advice = f"did you mean {close[0]}?" if close else "see `sendback config show`"
    return f"{name} is no setting, and has no effect: {advice}"


def _file_source(file: Path | None, known: Any) -> list[tuple[str, dict[str, str]]]:
    path = file or DEFAULT_FILE
    if not path.is_file():
        if file:
            raise SettingError("config", str(file), "flag", "the path of a readable TOML file")
        return []
    try:
        with path.open("rb") as opened:
            octets = opened.read(_MAX_FILE_OCTETS + 1)
        if len(octets) > _MAX_FILE_OCTETS:
            raise ValueError(f"it has more than {_MAX_FILE_OCTETS} octets")
        content = tomllib.loads(octets.decode("utf-8"))
    except RecursionError:
        raise SettingError("config", str(path), "file", "a TOML file: nested too deep") from None
    except (ValueError, OSError) as error:
        raise SettingError("config", str(path), "file", f"a TOML file: {error}") from None
    unknown = sorted(content.keys() - known)
    if unknown:
        # Its value is not shown: a misspelled setting may hold a password.
        raise SettingError(unknown[0], HIDDEN, str(path), "no setting has this name")
    return [(str(path), {name: _toml_text(name, value, path) for name, value in content.items()})]


def _toml_text(name: str, value: object, path: Path) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    kind = "a table" if isinstance(value, dict) else f"a {type(value).__name__}"
    raise SettingError(name, HIDDEN, str(path), f"a text or a number, not {kind}")


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    if settings.development_key and not settings.http_listen.is_loopback:
        raise SettingError(
            "http_listen",
            str(settings.http_listen),
            origins["http_listen"],
            "with the development key test/test only loopback is allowed; set development_key to "
            "false and make a key with `sendback keys create`",
        )
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        name = "tls_key" if settings.tls_key is None else "tls_certificate"
        raise SettingError(name, "", origins[name], "tls_certificate and tls_key go together")
    if settings.outbound.by_mx and settings.dns == "off":
        raise SettingError("dns", "off", origins["dns"], "delivery by MX needs DNS: system")
    if settings.outbound.by_mx and settings.test_verdicts:
        raise SettingError(
            "test_verdicts",
            "true",
            origins["test_verdicts"],
            "with delivery by MX only false: any client could give its mail the verdict PASS",
        )
    if settings.retention < settings.bounce_window:
        raise SettingError(
            "retention",
            str(settings.retention),
            origins["retention"],
            f"at least bounce_window ({settings.bounce_window})",
        )
