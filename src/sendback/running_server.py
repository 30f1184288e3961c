"""What other processes of this machine may know of the server that uses a data directory.

`sendback serve` writes its settings to a file in the data directory once it is ready, and deletes
the file when it stops. Other commands read it, so that they decide as the server does. Secrets are
not in it. The lock on the data directory shows whether the server still runs.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sendback.config.loading import LoadedSettings
from sendback.config.settings import Settings
from sendback.data_directory import LOCK_FILE
from sendback.net.listening import Addresses
from sendback.redaction import shown_url, without_credentials

FILE = "server.json"
_MAX_OCTETS = 2**20


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that runs: its process, its addresses (HOST:PORT), and its settings as texts.

    Of hidden settings there is none, and of the URL of a database only what is not secret, in
    `database`; empty: SQLite in the data directory.
    """

    process: int
    http: str
    smtp: str
    database: str
    settings: Mapping[str, str]


def write_running(loaded: LoadedSettings, addresses: Addresses) -> None:
    """Write the file for this process. Raise `OSError`."""
    settings = loaded.settings
    texts = {name: _absolute(settings, name, text) for name, text in loaded.public_texts.items()}
    for name in ("data_dir", "database"):
        texts.pop(name, None)
    # A relay's password is not written, and what depends on `outbound` is the same without it.
    texts["outbound"] = without_credentials(loaded.texts["outbound"])
    server = RunningServer(
        process=os.getpid(),
        http=str(addresses.http),
        smtp=str(addresses.smtp),
        database=shown_url(settings.database) if settings.database else "",
        settings=texts,
    )
    file = settings.data_dir / FILE
    part = file.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(asdict(server), indent=2))
    part.chmod(0o600)
    part.replace(file)


def _absolute(settings: Settings, name: str, text: str) -> str:
    """Return the text of a setting; a path is absolute, as others have another directory."""
    value = getattr(settings, name)
    return str(value.absolute()) if isinstance(value, Path) else text


def remove_running(data_dir: Path) -> None:
    """Delete the file if it is this process's."""
    found = _read(data_dir)
    if found is not None and found.process == os.getpid():
        with contextlib.suppress(OSError):
            (data_dir / FILE).unlink()


def running_server(data_dir: Path) -> RunningServer | None:
    """Return the server that uses the data directory now, or None."""
    found = _read(data_dir)
    return found if found is not None and _is_locked(data_dir) else None


def _read(data_dir: Path) -> RunningServer | None:
    try:
        with (data_dir / FILE).open("rb") as file:
            content = json.loads(file.read(_MAX_OCTETS))
        return RunningServer(**content)
    except (OSError, ValueError, TypeError):
        return None


def _is_locked(data_dir: Path) -> bool:
    """Return whether a server holds the lock; False also where files cannot be locked."""
    try:
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return False
    try:
        # Exclusive: several servers may share the lock. A server that starts now waits for us.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
