"""The form of log lines: one line an event, and nothing from outside can forge or hide one.

The last defence: code that logs text from outside writes it with `mail.printable` already. Here
whatever reached a line all the same (a host name in an exception of a library, a repr) is escaped:
terminal sequences, line ends, bidirectional controls. Pure formatting: no handler is made here.
"""

import logging

from sendback.mail.printable import printable

LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_INDENT = "    "


class PrintableFormatter(logging.Formatter):
    """A formatter that escapes what is not visible, with tracebacks as indented lines.

    A line that begins with a date is always an event of its own: the lines of a traceback are
    indented, also those that the text of the exception begins.
    """

    def __init__(self, line_format: str = LINE_FORMAT) -> None:
        super().__init__(line_format)

    def format(self, record: logging.LogRecord) -> str:
        """Return the event's line, then traceback and stack if the record has them.

        The record is not changed: `logging.Formatter` keeps its own traceback in it, for all
        formatters, which would be one that is not escaped.
        """
        record.message = record.getMessage()
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
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
