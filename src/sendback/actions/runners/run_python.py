"""Runs one Python handler: an event a line on standard input, an answer a line on a pipe.

Started by file, in a process of its own: it imports nothing of Sendback.
"""

import importlib.util
import json
import os
import sys
import time
import traceback
import uuid
from pathlib import Path
from typing import Any


class Context:
    """What Lambda gives a handler beside the event."""

    def __init__(self, arn: str, seconds: float) -> None:
        self.aws_request_id = str(uuid.uuid4())
        self.invoked_function_arn = arn
        self.function_name = arn.split(":")[6]
        self.function_version = "$LATEST"
        self.memory_limit_in_mb = "128"
        self._ends = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Until it is killed."""
        return max(0, round((self._ends - time.monotonic()) * 1000))


def load(file: Path, name: str) -> Any:
    """The handler."""
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return getattr(module, name)


def answer(file: Path, name: str, handlers: dict[str, Any], line: str) -> str:
    """One event; a handler that could not be loaded is loaded again for the next."""
    request = json.loads(line)
    try:
        if name not in handlers:
            handlers[name] = load(file, name)
        result = handlers[name](request["event"], Context(request["arn"], request["seconds"]))
        return json.dumps({"result": result})
    except BaseException as error:  # noqa: BLE001 - the handler may raise what it likes
        traceback.print_exc()
        return json.dumps({"error": f"{type(error).__name__}: {error}"})


_NICENESS = 5  # receiving mail comes first


def main() -> None:
    """FILE FUNCTION PIPE."""
    os.nice(_NICENESS)
    file, name, pipe = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    handlers: dict[str, Any] = {}
    with os.fdopen(pipe, "w", encoding="utf-8") as answers:
        for line in sys.stdin:
            answers.write(answer(file, name, handlers, line) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
