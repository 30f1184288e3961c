import io
import logging

import pytest

from sendback.logs import PrintableFormatter

FORGED = "example\n2026-11-25 12:00:00,000 INFO sendback all is well"


@pytest.fixture
def logged():
    """A logger whose handler has the formatter, and what the handler wrote."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(PrintableFormatter())
    logger = logging.getLogger("test")
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, written
    logger.handlers.clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("d=\x1b[2Jevil", "d=\\x1b[2Jevil"),
        ("c1 \x9b2J", "c1 \\x9b2J"),
        ("bidi \u202e\u2066", "bidi \\u202e\\u2066"),
        (FORGED, FORGED.replace("\n", "\\x0a")),
        ("Grüße", "Grüße"),
    ],
)
def test_an_event_is_one_visible_line(logged, text, shown):
    logger, written = logged
    logger.warning("event key=%s", text)
    assert written.getvalue().endswith(f" WARNING test event key={shown}\n")
    assert written.getvalue().count("\n") == 1


def test_a_lone_surrogate_is_escaped():
    # Not by a logger: pytest-xdist cannot send what pytest would capture.
    record = logging.makeLogRecord({"msg": "lone \udcff", "levelname": "WARNING"})
    assert PrintableFormatter().format(record).endswith("lone \\udcff")


def test_the_text_of_an_exception_forges_no_line(logged):
    logger, written = logged
    try:
        raise ValueError(FORGED + "\x1b[2J")
    except ValueError:
        logger.exception("event")
    first, *others = written.getvalue().splitlines()
    assert first.endswith(" ERROR test event")
    assert all(line.startswith("    ") for line in others)
    assert others[-2:] == [
        "    ValueError: example",
        "    2026-11-25 12:00:00,000 INFO sendback all is well\\x1b[2J",
    ]


def test_a_stack_is_escaped_too(logged):
    logger, written = logged
    logger.warning("event", stack_info=True)
    _, *others = written.getvalue().splitlines()
    assert others
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_the_traceback_that_another_formatter_kept_in_the_record_is_escaped_too(logged):
    logger, written = logged
    plain = io.StringIO()
    logger.handlers.insert(0, logging.StreamHandler(plain))
    try:
        raise ValueError("\x1b")
    except ValueError:
        logger.exception("event")
    assert "\x1b" in plain.getvalue()
    assert "\x1b" not in written.getvalue()


def test_a_record_with_the_text_of_a_traceback_alone_shows_it(logged):
    logger, written = logged
    record = logger.makeRecord("test", logging.ERROR, "file.py", 1, "event", (), None)
    record.exc_text = "ValueError: \x1b"
    logger.handle(record)
    assert written.getvalue().splitlines()[1] == "    ValueError: \\x1b"
