"""The format of log lines: one line per event, and untrusted text cannot forge or hide one.

Code that logs untrusted text uses `mail.printable`. This formatter escapes the rest (a host name in
an exception of a library, a repr): terminal sequences, line ends, bidirectional controls. Pure
formatting: no handler is created here.
"""

import logging
from datetime import UTC, datetime

from sendback.mail.printable import printable

LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_INDENT = "    "


class PrintableFormatter(logging.Formatter):
    """A formatter that escapes invisible characters and indents tracebacks.

    A line that begins with a date is always an event: all lines of a traceback are indented, those
    in the text of the exception included.
    """

    def __init__(self, line_format: str = LINE_FORMAT) -> None:
        super().__init__(line_format)

    def formatTime(self, record: logging.LogRecord, _: str | None = None) -> str:  # noqa: N802 - logging's
        """Return the date in RFC 3339 with milliseconds, in the zone of this machine."""
        moment = datetime.fromtimestamp(record.created, UTC).astimezone()
        return moment.isoformat(timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        """Return the event's line, then the traceback and the stack if the record has them.

        `logging.Formatter.format` is not called: it stores an unescaped traceback in the record.
        """
        record.message = record.getMessage()
        if self.usesTime():
            record.asctime = self.formatTime(record)
        lines = [printable(self.formatMessage(record), limit=None)]
        if record.exc_info:
            lines.append(_indented(self.formatException(record.exc_info)))
        elif record.exc_text:
            lines.append(_indented(record.exc_text))
        if record.stack_info:
            lines.append(_indented(self.formatStack(record.stack_info)))
        return "\n".join(lines)


def _indented(text: str) -> str:
    lines = text.split("\n")
    return "\n".join(_INDENT + printable(line, limit=None) for line in lines)
